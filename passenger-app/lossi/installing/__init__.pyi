# The public names of this room; `__init__.py` loads each when it is first used.
from .bundle import (
    OPTIONAL as OPTIONAL,
    components as components,
    shipped as shipped,
)
from .places import Places as Places
from .planning import (
    Change as Change,
    Plan as Plan,
    diff as diff,
    plan as plan,
)
from .state import (
    Edit as Edit,
    Installed as Installed,
    current as current,
    edits as edits,
    foreign as foreign,
    previous as previous,
)
from .versions import (
    apply as apply,
    refuse_foreign as refuse_foreign,
    rollback as rollback,
    uninstall as uninstall,
)
