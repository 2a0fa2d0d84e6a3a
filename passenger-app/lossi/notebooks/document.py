"""Read notebook files with the standard library's json and a few checks, without Jupyter.

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
"""Larger files are refused: their outputs belong in artifacts."""

PARAMETERS_TAG = "parameters"
INJECTED_TAG = "injected-parameters"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes
    ----------
    index
        0-based position among all cells.
    kind
        ``code``, ``markdown`` or ``raw``.
    source
        Its text, with line feeds as line ends.
    """

    index: int
    kind: str
    source: str
    tags: frozenset[str] = frozenset()

    def as_comment(self) -> str:
        """Return the source as a Python or R comment; no line of it can be read as code."""
        return "\n".join(f"# {line}".rstrip() for line in self.source.replace("\0", "\ufffd").splitlines())


@dataclass(frozen=True)
class Notebook:
    """The content of a notebook file.

    Attributes
    ----------
    language
        Its programming language in lower case (``python``, ``r``, ``julia``…), or ``unknown``.
    kernel
        Name of its kernelspec, or None.
    nbformat
        Major and minor version of the file format.
    title
        Title from the metadata, else the first heading, else an empty string.
    data
        The whole document as JSON types.
    notes
        Warnings for the user, such as a language that was guessed.
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
        """The code cells, in order."""
        return tuple(cell for cell in self.cells if cell.kind == "code")

    def tagged(self, tag: str) -> tuple[Cell, ...]:
        """Return the code cells with this tag, in order."""
        return tuple(cell for cell in self.code_cells if tag in cell.tags)


def read(source: Path | bytes | BinaryIO) -> Notebook:
    """Read a notebook from its path, its bytes or an open file.

    Raises
    ------
    NotFound
        When it does not exist.
    Forbidden
        When it cannot be read.
    InvalidInput
        When it is not a valid notebook of format 4: broken JSON, not UTF-8, too large, …
    """
    if isinstance(source, bytes):
        return parse(source)
    if not isinstance(source, Path):
        checked_size(source, "the notebook")
        return parse(source.read(LIMIT_BYTES + 1))
    with open_regular(source) as stream:
        return parse(stream.read(LIMIT_BYTES + 1))


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; a pipe, device or folder is refused without blocking.

    Raises
    ------
    NotFound, Forbidden, InvalidInput
        When it does not exist, cannot be read, or is not a regular file of at most `LIMIT_BYTES`.
    """
    try:
        stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except IsADirectoryError:
        raise _not_a_file(str(path)) from None
    except PermissionError:
        raise Forbidden(f"cannot read {path}", why="you have no permission", hint="ask its owner for read permission") from None
    except (OSError, ValueError) as error:
        why = "there is no such file" if isinstance(error, (FileNotFoundError, NotADirectoryError)) else str(error)
        raise NotFound(f"cannot read {path}", why=why, hint="check the path") from None
    try:
        checked_size(stream, str(path))
    except BaseException:
        stream.close()
        raise
    return stream


def checked_size(stream: BinaryIO, name: str) -> int:
    """Return the size in bytes of an open regular file; raise InvalidInput if it is not one or larger than `LIMIT_BYTES`."""
    status = os.fstat(stream.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise _not_a_file(name)
    if status.st_size > LIMIT_BYTES:
        raise _too_large(status.st_size)
    return status.st_size


def parse(content: bytes) -> Notebook:
    """Return the notebook in these bytes; raises InvalidInput as `read` does."""
    if len(content) > LIMIT_BYTES:
        raise _too_large(len(content))
    if not content.strip():
        raise InvalidInput(
            "the notebook is empty", why="the file has no content", hint="open it in Jupyter, add a cell and save it"
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
            hint="save it again in Jupyter, or convert it with `iconv -t UTF-8`",
        ) from None
    except json.JSONDecodeError as error:
        raise InvalidInput(
            "the notebook is not valid JSON",
            why=f"line {error.lineno}, column {error.colno}: {error.msg}",
            hint="is it truncated or does it have conflict markers? restore it from a checkpoint or from git",
        ) from None
    except (RecursionError, ValueError) as error:
        raise InvalidInput("the notebook is not valid JSON", why=str(error), hint="save it again in Jupyter") from None
    if not isinstance(document, dict) or not isinstance(document.get("nbformat"), int):
        raise InvalidInput(
            "this is not a notebook", why="the file has no `nbformat`", hint="pass a file that Jupyter saved (*.ipynb)"
        )
    version = document["nbformat"]
    if version < 4:
        raise InvalidInput(
            f"the notebook has the old format {version}",
            why="only format 4 is supported",
            hint="convert it: jupyter nbconvert --to notebook --nbformat 4 NOTEBOOK",
        )
    if version > 4:
        raise InvalidInput(
            f"the notebook has format {version}",
            why="this version of Lossi supports format 4",
            hint="save it in format 4, or use a newer Lossi",
        )
    if not isinstance(document.get("cells"), list):
        raise InvalidInput("this is not a notebook", why="it has no list of `cells`", hint="save it again in Jupyter")
    return document


def _cells(entries: list[Any]) -> tuple[Cell, ...]:
    cells = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("cell_type"), str):
            raise InvalidInput(
                "this is not a notebook", why=f"cell {index + 1} has no `cell_type`", hint="save it again in Jupyter"
            )
        source = entry.get("source", "")
        if isinstance(source, list) and all(isinstance(line, str) for line in source):
            source = "".join(source)
        if not isinstance(source, str):
            raise InvalidInput(
                "this is not a notebook", why=f"the source of cell {index + 1} is not text", hint="save it again in Jupyter"
            )
        tags = _mapping(entry.get("metadata")).get("tags")
        names = frozenset(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else frozenset[str]()
        # Python and R also read CRLF and CR as line ends.
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
        f"{name} is not a file", why="it is a folder or a special file", hint="pass the notebook itself (*.ipynb)"
    )


def _too_large(size: int) -> InvalidInput:
    return InvalidInput(
        "the notebook is too large",
        why=f"it has {units.humanize_size(size)}, the limit is {units.humanize_size(LIMIT_BYTES)}",
        hint="clear its outputs in Jupyter (Edit, Clear Outputs of All Cells) and save large results as artifacts",
    )
