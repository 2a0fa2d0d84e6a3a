"""A notebook's parameters, its conversion to a script, and its rendering as HTML.

Reads notebook files and writes only the cache of rendered pages. Nothing of a notebook is run here: text is read with the
standard library, and nbconvert works in a child process with limits.
"""

from lossi.notebooks.conversion import Script, script
from lossi.notebooks.document import Cell, Notebook, read
from lossi.notebooks.parameter import TYPES, Parameter
from lossi.notebooks.rendering import StillRendering, render
from lossi.notebooks.tagged_cell import HOW_TO_TAG, Parameters, parameters
from lossi.notebooks.values import check_values, json_safe

__all__ = [
    "HOW_TO_TAG",
    "TYPES",
    "Cell",
    "Notebook",
    "Parameter",
    "Parameters",
    "Script",
    "StillRendering",
    "check_values",
    "json_safe",
    "parameters",
    "read",
    "render",
    "script",
]
