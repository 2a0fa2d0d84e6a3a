"""What Passenger loads for the portal. Readable by Python 3.6, as `starting`, which says why if the portal cannot start."""

import os
import sys
import traceback

from starting import CannotStart, environment, start

HERE = os.path.dirname(os.path.abspath(__file__))


def portal():
    """Return the portal's WSGI application; raises `CannotStart`."""
    try:
        from lossi.portal import create_portal
    except ImportError as error:
        traceback.print_exc()
        raise CannotStart(
            f"{sys.executable}: {error}",
            "run `lossi install` again: it makes a complete environment for the app"
            if environment(HERE)
            else "run `lossi install`: the app has no environment, and it makes one",
        ) from None
    return create_portal(HERE)


application = start(HERE, "Lossi", portal, "Your jobs and runs are not affected: they do not depend on this page.")
