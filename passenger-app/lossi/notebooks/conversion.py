"""A notebook as a script whose parameters are flags and which logs the same metrics. Text in, text out."""

from __future__ import annotations

from dataclasses import dataclass

from lossi.errors import NotSupported
from lossi.notebooks import python_script, r_script
from lossi.notebooks.document import Notebook
from lossi.notebooks.tagged_cell import parameters


@dataclass(frozen=True)
class Script:
    """A script made from a notebook.

    Attributes
    ----------
    text
        The script, always encodable as UTF-8.
    language
        ``python`` or ``r``.
    suffix
        ``.py`` or ``.R``.
    notes
        What the user should know, such as cells that are not valid code.
    """

    text: str
    language: str
    suffix: str
    notes: tuple[str, ...] = ()


def script(notebook: Notebook) -> Script:
    """Return the notebook as a script: parameters as ``--flags``, then its code cells in order between ``# %%`` marks.

    Cells tagged ``skip-execution`` stay out and those tagged ``raises-exception`` may fail, as in papermill.

    Raises
    ------
    NotSupported
        When it is neither Python nor R.
    """
    if notebook.language == "python":
        suffix, (text, notes) = ".py", python_script.convert(notebook, parameters(notebook))
    elif notebook.language == "r":
        suffix, (text, notes) = ".R", r_script.convert(notebook, parameters(notebook))
    else:
        name = "this language" if notebook.language == "unknown" else notebook.language.title()
        raise NotSupported(
            f"a notebook in {name} cannot become a script",
            why=" ".join(notebook.notes) or "only Python and R notebooks can",
            hint="choose a Python or R kernel in Jupyter and save the notebook",
        )
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return Script(text, notebook.language, suffix, (*notebook.notes, *notes))
