# The public names of this room; `__init__.py` loads each when it is first used.
from . import (
    index as index,
)
from . import (
    snapshot as snapshot,
)
from . import (
    stores as stores,
)
from .description import (
    GitInfo as GitInfo,
)
from .description import (
    ProjectInfo as ProjectInfo,
)
from .description import (
    describe as describe,
)
from .project import Project as Project
from .registry import (
    by_name_or_path as by_name_or_path,
)
from .registry import (
    find as find,
)
from .registry import (
    forget as forget,
)
from .registry import (
    init as init,
)
from .registry import (
    register as register,
)
from .registry import (
    registered as registered,
)
from .run_folders import runs_in as runs_in
from .store_paths import is_utf8 as is_utf8
