# The public names of this room; `__init__.py` loads each when it is first used.
from .bundle import (
    OPTIONAL as OPTIONAL,
)
from .bundle import (
    Component as Component,
)
from .bundle import (
    components as components,
)
from .bundle import (
    shipped as shipped,
)
from .doing import (
    apply as apply,
)
from .doing import (
    refuse_foreign as refuse_foreign,
)
from .doing import (
    rollback as rollback,
)
from .doing import (
    uninstall as uninstall,
)
from .places import Places as Places
from .planning import (
    Change as Change,
)
from .planning import (
    Plan as Plan,
)
from .planning import (
    diff as diff,
)
from .planning import (
    plan as plan,
)
from .state import (
    Edit as Edit,
)
from .state import (
    Installed as Installed,
)
from .state import (
    current as current,
)
from .state import (
    edits as edits,
)
from .state import (
    foreign as foreign,
)
from .state import (
    previous as previous,
)
