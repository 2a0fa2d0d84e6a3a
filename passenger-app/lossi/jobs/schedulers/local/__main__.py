"""The supervisor's way into life: detach from whoever submitted, then import as little as possible.

Run by `launch` as ``python -I -S <this file> <state folder> <lock descriptor> <boot id file> <linger>``. The packages above
the supervisor are entered without their ``__init__``, which is made for the web process and would cost it tenths of a
second and tens of megabytes.
"""

import os
import sys
import types

WITHOUT_INIT = ("lossi.files", "lossi.jobs", "lossi.jobs.schedulers", "lossi.jobs.schedulers.local")

if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    root = os.path.abspath(__file__).removesuffix("/lossi/jobs/schedulers/local/__main__.py")  # noqa: PTH100 - pathlib is slow
    sys.path.insert(0, root)
    for name in WITHOUT_INIT:
        package = types.ModuleType(name)
        package.__path__ = [os.path.join(root, *name.split("."))]  # noqa: PTH118
        sys.modules[name] = package

    from lossi.jobs.schedulers.local.supervisor import main

    main(sys.argv[1:])
