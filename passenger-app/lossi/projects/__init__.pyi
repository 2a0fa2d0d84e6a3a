# The public names of this room; `__init__.py` loads each when it is first used.
from . import (
    facts as facts,
    index as index,
    snapshot as snapshot,
    stores as stores,
)
from .description import (
    GitInfo as GitInfo,
    ProjectInfo as ProjectInfo,
    describe as describe,
)
from .project import Project as Project
from .registry import (
    by_name_or_path as by_name_or_path,
    find as find,
    forget as forget,
    init as init,
    register as register,
    registered as registered,
)
from .run_folders import runs_in as runs_in
from .store_paths import is_utf8 as is_utf8
