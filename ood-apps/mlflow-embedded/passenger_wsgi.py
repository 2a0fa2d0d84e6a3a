"""What Passenger loads for MLflow's pages. Readable by Python 3.6, as `starting`, which says why if they cannot start."""

import os
import sys
from importlib.util import find_spec

from starting import CannotStart, start

HERE = os.path.dirname(os.path.abspath(__file__))


def embedded():
    """Return the WSGI application; raises `CannotStart`."""
    missing = [name for name in ("lossi", "mlflow", "sqlalchemy") if find_spec(name) is None]
    if missing:
        raise CannotStart(
            "{} has no {}".format(sys.executable, " and no ".join(missing)),
            "name an environment with Lossi and MLflow in `{}`".format(os.path.join(HERE, "environment")),
        )
    from lossi.mlflow_ui.embedded import Embedded

    return Embedded()


application = start(HERE, "MLflow", embedded, "Your runs are not affected: Lossi's own pages show them too.")
