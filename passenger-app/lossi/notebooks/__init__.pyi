# The public names of this room; `__init__.py` loads each when it is first used.
from .conversion import Script as Script
from .conversion import script as script
from .document import (
    Cell as Cell,
)
from .document import (
    Notebook as Notebook,
)
from .document import (
    read as read,
)
from .parameter import TYPES as TYPES
from .parameter import Parameter as Parameter
from .rendering import StillRendering as StillRendering
from .rendering import render as render
from .tagged_cell import (
    HOW_TO_TAG as HOW_TO_TAG,
)
from .tagged_cell import (
    Parameters as Parameters,
)
from .tagged_cell import (
    parameters as parameters,
)
from .values import check_values as check_values
from .values import json_safe as json_safe
