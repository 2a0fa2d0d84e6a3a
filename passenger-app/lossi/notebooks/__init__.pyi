# The public names of this room; `__init__.py` loads each when it is first used.
from .conversion import Script as Script, script as script
from .document import (
    Cell as Cell,
    Notebook as Notebook,
    read as read,
)
from .parameter import TYPES as TYPES, Parameter as Parameter
from .rendering import StillRendering as StillRendering, render as render
from .tagged_cell import (
    HOW_TO_TAG as HOW_TO_TAG,
    Parameters as Parameters,
    parameters as parameters,
)
from .values import check_values as check_values
