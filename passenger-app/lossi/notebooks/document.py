"""A notebook file as it is read here: the standard library's json and a few checks, nothing of Jupyter.

Reads one file, starts nothing. Format: nbformat 4, https://nbformat.readthedocs.io/en/latest/format_description.html
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from lossi import units
from lossi.contract.text import printable
from lossi.errors import Forbidden, InvalidInput, NotFound
from lossi.notebooks import language as languages

LIMIT_BYTES = 256 * 2**20
"""A greater file is not read: it holds results that belong into artifacts."""

PARAMETERS_TAG = "parameters"
INJECTED_TAG = "injected-parameters"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes
    ----------
    index
        0-based place among all cells.
    kind
        ``code``, ``markdown`` or ``raw``.
    source
        Its text, lines separated by a line feed.
    """

    index: int
    kind: str
    source: str
    tags: frozenset[str] = frozenset()

    def as_comment(self) -> str:
        """Return the source as a comment of Python or R, of which nothing can be read as code."""
        return "\n".join(f"# {line}".rstrip() for line in self.source.replace("\0", "\ufffd").splitlines())


@dataclass(frozen=True)
class Notebook:
    """What a notebook file says.

    Attributes
    ----------
    language
        Lower-case name of its programming language (``python``, ``r``, ``julia``…), ``unknown`` if nothing tells.
    kernel
        Name of the kernelspec that it asks for, or None.
    nbformat
        Major and minor version of the file's form.
    title
        First heading, or an empty string.
    data
        The whole document, as JSON types.
    notes
        What the user should know, such as a language that had to be guessed.
    """

    language: str
    kernel: str | None
    cells: tuple[Cell, ...]
    nbformat: tuple[int, int]
    title: str = ""
    data: dict[str, Any] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def code_cells(self) -> tuple[Cell, ...]:
        """The cells that hold code, in order."""
        return tuple(cell for cell in self.cells if cell.kind == "code")

    def tagged(self, tag: str) -> tuple[Cell, ...]:
        """Return the code cells with this tag, in order."""
        return tuple(cell for cell in self.code_cells if tag in cell.tags)


def read(source: Path | bytes | BinaryIO) -> Notebook:
    """Read a notebook from its path, its bytes or an open file.

    Raises
    ------
    NotFound
        When there is no such file.
    Forbidden
        When it may not be read.
    InvalidInput
        When it is not a notebook of format 4 that can be read: broken JSON, other text than UTF-8, too large, …
    """
    if isinstance(source, bytes):
        return parse(source)
    if not isinstance(source, Path):
        checked_size(source, "the notebook")
        return parse(source.read(LIMIT_BYTES + 1))
    with open_regular(source) as stream:
        return parse(stream.read(LIMIT_BYTES + 1))


def open_regular(path: Path) -> BinaryIO:
    """Open an ordinary file for reading; a pipe, device or folder is refused without waiting for it.

    Raises
    ------
    NotFound, Forbidden, InvalidInput
        When it is missing, may not be read, or is no ordinary file of at most `LIMIT_BYTES`.
    """
    try:
        stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except IsADirectoryError:
        raise _not_a_file(str(path)) from None
    except PermissionError:
        raise Forbidden(f"cannot read {path}", why="you have no permission", hint="ask its owner for read permission") from None
    except (OSError, ValueError) as error:
        why = "there is no such file" if isinstance(error, (FileNotFoundError, NotADirectoryError)) else str(error)
        raise NotFound(f"cannot read {path}", why=why, hint="check the path of the notebook") from None
    try:
        checked_size(stream, str(path))
    except BaseException:
        stream.close()
        raise
    return stream


def checked_size(stream: BinaryIO, name: str) -> int:
    """Return the size in bytes of an open ordinary file of at most `LIMIT_BYTES`; raise InvalidInput otherwise."""
    status = os.fstat(stream.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise _not_a_file(name)
    if status.st_size > LIMIT_BYTES:
        raise _too_large(status.st_size)
    return status.st_size


def parse(content: bytes) -> Notebook:
    """Return the notebook that these bytes hold; raises InvalidInput as `read` does."""
    if len(content) > LIMIT_BYTES:
        raise _too_large(len(content))
    if not content.strip():
        raise InvalidInput(
            "the notebook is empty", why="the file holds nothing", hint="open it in Jupyter, add a cell and save it"
        )
    document = _document(content)
    cells = _cells(document["cells"])
    metadata = _mapping(document.get("metadata"))
    code = [cell.source for cell in cells if cell.kind == "code"]
    kernel, language, notes = languages.of(metadata, code)
    minor = document.get("nbformat_minor")
    return Notebook(
        language=language,
        kernel=kernel,
        cells=cells,
        nbformat=(4, minor if isinstance(minor, int) else 0),
        title=_title(metadata, cells),
        data=document,
        notes=notes,
    )


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InvalidInput(
            "the notebook is not UTF-8 text",
            why=f"byte {error.start} is {content[error.start]:#04x}",
            hint="save it again from Jupyter, or convert it with `iconv -t UTF-8`",
        ) from None
    except json.JSONDecodeError as error:
        raise InvalidInput(
            "the notebook is not valid JSON",
            why=f"line {error.lineno}, column {error.colno}: {error.msg}",
            hint="was it cut off or merged with conflict markers? restore it from a checkpoint or from git",
        ) from None
    except (RecursionError, ValueError) as error:
        raise InvalidInput("the notebook is not valid JSON", why=str(error), hint="save it again from Jupyter") from None
    if not isinstance(document, dict) or not isinstance(document.get("nbformat"), int):
        raise InvalidInput(
            "this is not a notebook", why="the file has no `nbformat`", hint="name a file that Jupyter saved (*.ipynb)"
        )
    version = document["nbformat"]
    if version < 4:
        raise InvalidInput(
            f"the notebook has the old format {version}",
            why="Lossi reads format 4",
            hint="convert it: jupyter nbconvert --to notebook --nbformat 4 NOTEBOOK",
        )
    if version > 4:
        raise InvalidInput(
            f"the notebook has format {version}",
            why="this Lossi knows format 4",
            hint="save it in format 4, or use a newer Lossi",
        )
    if not isinstance(document.get("cells"), list):
        raise InvalidInput("this is not a notebook", why="it has no list of `cells`", hint="save it again from Jupyter")
    return document


def _cells(entries: list[Any]) -> tuple[Cell, ...]:
    cells = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("cell_type"), str):
            raise InvalidInput(
                "this is not a notebook", why=f"cell {index + 1} has no `cell_type`", hint="save it again from Jupyter"
            )
        source = entry.get("source", "")
        if isinstance(source, list) and all(isinstance(line, str) for line in source):
            source = "".join(source)
        if not isinstance(source, str):
            raise InvalidInput(
                "this is not a notebook", why=f"the source of cell {index + 1} is not text", hint="save it again from Jupyter"
            )
        tags = _mapping(entry.get("metadata")).get("tags")
        names = frozenset(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else frozenset[str]()
        # Python and R read CRLF and a lone CR as a line end too.
        cells.append(Cell(index, entry["cell_type"], source.replace("\r\n", "\n").replace("\r", "\n"), names))
    return tuple(cells)


def _title(metadata: Mapping[str, Any], cells: tuple[Cell, ...]) -> str:
    if isinstance(metadata.get("title"), str) and metadata["title"].strip():
        return _one_line(metadata["title"])
    for cell in cells:
        if cell.kind == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("#") and line.lstrip("#").strip():
                    return _one_line(line.strip("#"))
    return ""


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _not_a_file(name: str) -> InvalidInput:
    return InvalidInput(
        f"{name} is not a file", why="it is a folder or a special file", hint="name the notebook itself (*.ipynb)"
    )


def _too_large(size: int) -> InvalidInput:
    return InvalidInput(
        "the notebook is too large",
        why=f"it has {units.humanize_size(size)}, the limit is {units.humanize_size(LIMIT_BYTES)}",
        hint="clear its outputs in Jupyter (Edit, Clear Outputs of All Cells) and save large results as artifacts",
    )
