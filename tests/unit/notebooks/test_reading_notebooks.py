from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lossi import notebooks
from lossi.errors import Forbidden, InvalidInput, NotFound
from lossi.notebooks import document


def test_cells_language_kernel_and_title_are_read(notebook: Any) -> None:
    read = notebooks.read(notebook("md:intro\n\n## The *title* ##\n", "a = 1\nb = 2", ("c = 3", "parameters")))
    assert (read.language, read.kernel, read.title) == ("python", "python3", "The *title*")
    assert [cell.kind for cell in read.cells] == ["markdown", "code", "code"]
    assert [cell.source for cell in read.code_cells] == ["a = 1\nb = 2", "c = 3"]
    assert read.tagged("parameters")[0].index == 2
    assert read.nbformat == (4, 5)


def test_file_and_open_file_and_bytes_read_alike(saved: Any) -> None:
    path = saved("x = 1")
    with path.open("rb") as stream:
        assert notebooks.read(path) == notebooks.read(path.read_bytes()) == notebooks.read(stream)


def test_windows_line_ends_and_byte_order_mark(notebook: Any) -> None:
    data = json.loads(notebook("x"))
    data["cells"][0]["source"] = "a = 1\r\nb = 2\rc = 3"
    read = notebooks.read(b"\xef\xbb\xbf" + json.dumps(data).encode())
    assert read.cells[0].source == "a = 1\nb = 2\nc = 3"


@pytest.mark.parametrize(
    ("content", "says", "hint"),
    [
        (b"", "empty", "add a cell"),
        (b"  \n", "empty", "add a cell"),
        (b'{"cells": [', "not valid JSON", "checkpoint"),
        (b'{"cells": [], "nbformat": 4}\n<<<<<<< HEAD', "not valid JSON", "conflict"),
        (b'{"nbformat": 4, "cells": [], "metadata": {"title": "\xe9"}}', "not UTF-8", "iconv"),
        ("{}".encode("utf-16"), "not UTF-8", "iconv"),
        (b"[1, 2]", "not a notebook", "ipynb"),
        (b'{"a": 1}', "not a notebook", "ipynb"),
        (b'{"nbformat": 4}', "not a notebook", "Jupyter"),
        (b'{"nbformat": 4, "cells": [{"source": "x"}]}', "not a notebook", "Jupyter"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": [1]}]}', "not a notebook", "Jupyter"),
        (b'{"nbformat": 4, "cells": ["x"]}', "not a notebook", "Jupyter"),
        (b'{"nbformat": 3, "worksheets": []}', "old format 3", "jupyter nbconvert --to notebook --nbformat 4"),
        (b'{"nbformat": 5, "cells": []}', "format 5", "newer Lossi"),
        (b"[" * 100_000, "not valid JSON", "Jupyter"),
        (b"1" * 10_000, "not valid JSON", "Jupyter"),
    ],
)
def test_files_that_are_not_notebooks_are_refused_with_a_reason(content: bytes, says: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        notebooks.read(content)
    assert says in caught.value.what
    assert hint in caught.value.hint
    assert len(str(caught.value)) < 400


def test_missing_folder_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        notebooks.read(tmp_path / "no.ipynb")
    with pytest.raises(InvalidInput, match="not a file"):
        notebooks.read(tmp_path)
    with pytest.raises(NotFound):
        notebooks.read(tmp_path / ("x" * 300))
    locked = tmp_path / "locked.ipynb"
    locked.write_bytes(b"{}")
    locked.chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(Forbidden):
            notebooks.read(locked)


def test_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ipynb")
    with pytest.raises(InvalidInput, match="not a file"):
        notebooks.read(tmp_path / "pipe.ipynb")


def test_too_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.ipynb"
    with huge.open("wb") as stream:
        stream.truncate(document.LIMIT_BYTES + 1)
    with pytest.raises(InvalidInput, match="too large") as caught:
        notebooks.read(huge)
    assert "Clear Outputs" in caught.value.hint


def test_fifty_megabytes_are_read(notebook: Any, tmp_path: Path) -> None:
    data = json.loads(notebook(("lr = 0.1  # rate", "parameters"), *["print(1)"] * 500))
    for cell in data["cells"]:
        text = {"output_type": "stream", "name": "stdout", "text": ["line of output\n"] * 2000}
        image = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "iVBORw0KGgo" * 7000}}
        cell["outputs"] = [text, image]
    path = tmp_path / "big.ipynb"
    path.write_text(json.dumps(data))
    assert path.stat().st_size > 50_000_000
    parameters = notebooks.parameters(notebooks.read(path))
    assert parameters.parameters[0].comment == "rate"


def test_empty_and_markdown_only_notebooks(notebook: Any) -> None:
    for content in (notebook(), notebook("md:# Only text")):
        parameters = notebooks.parameters(notebooks.read(content))
        assert (parameters.cell_index, parameters.parameters) == (None, ())
        assert "tag it `parameters`" in parameters.notes[-1]


@pytest.mark.parametrize(
    ("metadata", "cells", "language", "note"),
    [
        ({"language_info": {"name": "ipython"}}, [], "python", ""),
        ({"kernelspec": {"name": "mine", "language": "R"}}, [], "r", ""),
        ({"kernelspec": {"name": "conda-env-py311-python"}}, ["x"], "python", "its code looks like Python"),
        ({"kernelspec": {"name": "python3"}}, ["x"], "python", ""),
        ({"kernelspec": {"name": "ir"}}, [], "r", ""),
        ({"kernelspec": {"name": "ir_4.2"}}, [], "r", ""),
        ({"kernelspec": {"name": "julia-1.9"}}, [], "julia", ""),
        ({"kernelspec": {"name": "rust"}}, ["let x = 1;"], "unknown", "language is unknown"),
        ({"kernelspec": {"name": "my-kernel"}}, ["%matplotlib inline\nx = 1"], "python", "'my-kernel'"),
        ({}, ["x <- 5\nprint(x)"], "r", "its code looks like R"),
        ({}, ["import os"], "python", "names no kernel"),
        ({}, [], "unknown", "names no kernel"),
        ({"kernelspec": "broken", "language_info": None}, ["x = 1"], "python", "names no kernel"),
        ({"language_info": {"name": "scala"}}, [], "scala", ""),
    ],
)
def test_language_of_unknown_kernels_is_guessed_with_a_note(
    notebook: Any, metadata: dict[str, Any], cells: list[str], language: str, note: str
) -> None:
    read = notebooks.read(notebook(*cells, language=None, **metadata))
    assert read.language == language
    assert note in " ".join(read.notes)
    assert bool(read.notes) == bool(note)
