"""A notebook's parameters: the assignments in the cell tagged ``parameters``, with types, defaults and comments.

As in papermill, the first tagged cell counts, and values are injected in a cell after it. Runs no cells.
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
    "put the values that vary in one cell and tag it `parameters`: in JupyterLab open the Property Inspector "
    "(gears at the right) and add the tag under Cell Tags; in VS Code choose Add Cell Tag in the cell's menu"
)

_READERS: Mapping[str, Callable[[str], tuple[tuple[Parameter, ...], tuple[str, ...]]]] = MappingProxyType(
    {"python": python_parameters.read, "r": r_parameters.read}
)
LANGUAGES = frozenset(_READERS)
"""Languages whose parameters can be read and set."""


@dataclass(frozen=True)
class Parameters:
    """The parameters of a notebook.

    Attributes
    ----------
    language
        The notebook's language.
    cell_index
        0-based position of the tagged cell among all cells; None if there is none.
    parameters
        In the cell's order.
    notes
        What could not be parsed, and why.
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
    """Return a notebook's parameters; without a tagged cell there are none, and a note says how to tag one."""
    tagged = notebook.tagged(PARAMETERS_TAG)
    notes = list(notebook.notes)
    if not tagged:
        return Parameters(notebook.language, None, notes=(*notes, f"no cell is tagged `parameters`: {HOW_TO_TAG}"))
    cell = tagged[0]
    if len(tagged) > 1:
        places = ", ".join(str(other.index + 1) for other in tagged[1:])
        notes.append(f"several cells are tagged `parameters`: only the first counts (cell {cell.index + 1}, not {places})")
    if notebook.tagged(INJECTED_TAG):
        notes.append(
            "the notebook contains values of an earlier run (a cell tagged `injected-parameters`); new values replace them"
        )
    reader = _READERS.get(notebook.language)
    if reader is None:
        return Parameters(notebook.language, cell.index, notes=(*notes, not_readable(notebook.language)))
    parsed, more = reader(cell.source)
    return Parameters(notebook.language, cell.index, parsed, (*notes, *more))


def not_readable(language: str) -> str:
    """Return why the parameters of this language cannot be read."""
    if language == "unknown":
        return "the notebook's language is unknown, so its parameters cannot be read"
    return f"parameters of {language.title()} notebooks are not supported, only of Python and R"
