"""The parameters of a notebook: what the cell tagged ``parameters`` assigns, with types, defaults and comments.

Papermill's semantics: the first cell with the tag counts, and values from outside are assigned in a cell after it. Reads
text only; no cell is ever run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lossi.notebooks import python_parameters, r_parameters
from lossi.notebooks.document import INJECTED_TAG, PARAMETERS_TAG, Notebook
from lossi.notebooks.parameter import Parameter

HOW_TO_TAG = (
    "put the values that may change into one cell and tag it `parameters`: in JupyterLab open the Property Inspector "
    "(gear wheels at the right) and add the tag under Cell Tags; in VS Code choose Add Cell Tag in the cell's menu"
)

_READERS: Mapping[str, Callable[[str], tuple[tuple[Parameter, ...], tuple[str, ...]]]] = MappingProxyType(
    {"python": python_parameters.read, "r": r_parameters.read}
)
LANGUAGES = frozenset(_READERS)
"""Languages whose parameters can be read and set."""


@dataclass(frozen=True)
class Parameters:
    """What may be set from outside.

    Attributes
    ----------
    language
        Language of the notebook.
    cell_index
        0-based place of the tagged cell among all cells; None when there is none.
    parameters
        In the order of the cell.
    notes
        What could not be understood, and why.
    """

    language: str
    cell_index: int | None
    parameters: tuple[Parameter, ...] = ()
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def by_name(self) -> Mapping[str, Parameter]:
        """The parameters by name."""
        return {item.name: item for item in self.parameters}


def parameters(notebook: Notebook) -> Parameters:
    """Return the parameters of a notebook; a notebook without a tagged cell has none, and a note says how to tag one."""
    tagged = notebook.tagged(PARAMETERS_TAG)
    notes = list(notebook.notes)
    if not tagged:
        return Parameters(notebook.language, None, notes=(*notes, f"no cell is tagged `parameters`: {HOW_TO_TAG}"))
    cell = tagged[0]
    if len(tagged) > 1:
        places = ", ".join(str(other.index + 1) for other in tagged[1:])
        notes.append(f"only the first cell tagged `parameters` counts (cell {cell.index + 1}, not {places})")
    if notebook.tagged(INJECTED_TAG):
        notes.append(
            "the notebook holds values of an earlier run (a cell tagged `injected-parameters`), which new values replace"
        )
    reader = _READERS.get(notebook.language)
    if reader is None:
        return Parameters(notebook.language, cell.index, notes=(*notes, not_readable(notebook.language)))
    found, more = reader(cell.source)
    return Parameters(notebook.language, cell.index, found, (*notes, *more))


def not_readable(language: str) -> str:
    """Return why the parameters of this language cannot be read."""
    if language == "unknown":
        return "parameters cannot be read because the notebook's language is unknown"
    return f"parameters of {language.title()} notebooks cannot be read or set safely yet: Python and R can"
