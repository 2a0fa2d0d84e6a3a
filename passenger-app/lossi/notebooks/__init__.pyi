# The public names of this room; `__init__.py` loads each when it is first used.
from .conversion import script as script
from .document import (
    Cell as Cell,
    Notebook as Notebook,
    read as read,
)
from .parameter import Parameter as Parameter
from .rendering import StillRendering as StillRendering, render as render
from .tagged_cell import (
    Parameters as Parameters,
    parameters as parameters,
)
from .values import check_values as check_values
