"""Convert a notebook to a script that takes its parameters as flags and logs the same metrics. Text in, text out."""

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
        The script's source, always valid UTF-8.
    language
        ``python`` or ``r``.
    suffix
        ``.py`` or ``.R``.
    notes
        Warnings for the user, such as cells that are not valid code.
    """

    text: str
    language: str
    suffix: str
    notes: tuple[str, ...] = ()


def script(notebook: Notebook) -> Script:
    """Return the notebook as a script: parameters as ``--flags``, then its code cells in order, separated by ``# %%``.

    Cells tagged ``skip-execution`` are left out and cells tagged ``raises-exception`` may fail, as in papermill.

    Raises
    ------
    NotSupported
        When its language is not Python or R.
    """
    if notebook.language == "python":
        suffix, (text, notes) = ".py", python_script.convert(notebook, parameters(notebook))
    elif notebook.language == "r":
        suffix, (text, notes) = ".R", r_script.convert(notebook, parameters(notebook))
    else:
        name = "this language" if notebook.language == "unknown" else notebook.language.title()
        raise NotSupported(
            f"cannot convert a notebook in {name} to a script",
            why=" ".join(notebook.notes) or "only Python and R are supported",
            hint="choose a Python or R kernel in Jupyter and save the notebook",
        )
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return Script(text, notebook.language, suffix, (*notebook.notes, *notes))
