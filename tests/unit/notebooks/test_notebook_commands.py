"""``lossi notebook`` as people call it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lossi import cli

CELL = ("lr: float = 0.1  # rate \x1b[31m\nbound = float('nan')\nlayers = [1]\ndata: str", "parameters")


@pytest.fixture
def lossi(home: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Any:
    """Run a command; return (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["notebook", *arguments])
        out, err = capsysbinary.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), out.decode(), err.decode()

    return run


def test_parameters_are_listed(lossi: Any, saved: Any) -> None:
    code, out, err = lossi("params", str(saved(CELL)))
    assert code == 0, err
    for part in ("lr", "float", "0.1", "rate", "layers", "[1]", "(required)"):
        assert part in out
    assert "\x1b" not in out


def test_parameters_as_json_have_no_nan(lossi: Any, saved: Any) -> None:
    path = saved(CELL)
    code, out, _ = lossi("params", str(path), "--json")
    data = json.loads(out, parse_constant=lambda constant: pytest.fail(constant))
    assert code == 0
    assert (data["language"], data["cell_index"], data["notes"]) == ("python", 0, [])
    assert [item["default"] for item in data["parameters"]] == [0.1, "NaN", [1], None]
    assert data["parameters"][3]["required"]


def test_untagged_notebook_says_how_to_tag(lossi: Any, saved: Any) -> None:
    code, out, err = lossi("params", str(saved("lr = 0.1")))
    assert (code, out) == (0, "The notebook has no parameters.\n")
    assert "Property Inspector" in err


def test_script_to_stdout_and_to_a_file(lossi: Any, saved: Any, tmp_path: Path) -> None:
    path = saved(CELL, "print('é', lr, data)")
    code, out, _ = lossi("script", str(path))
    assert code == 0
    target = tmp_path / "new script.py"
    code, printed, _ = lossi("script", str(path), "-o", str(target))
    assert target.read_text("utf-8") == out
    assert str(target) in printed
    done = subprocess.run([sys.executable, str(target), "--data", "d", "--lr=2"], capture_output=True, text=True, timeout=300)
    assert done.stdout == "é 2.0 d\n", done.stderr
    code, out, _ = lossi("script", str(path), "--json")
    assert json.loads(out)["text"] == target.read_text("utf-8")


def test_render_to_a_file(lossi: Any, saved: Any, tmp_path: Path) -> None:
    code, out, err = lossi("render", str(saved("md:# Title", "x = 1")), "-o", str(tmp_path / "page.html"), "--json")
    assert code == 0, err
    assert json.loads(out)["bytes"] == (tmp_path / "page.html").stat().st_size
    assert "<title>Title</title>" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("command", [["params"], ["script"], ["render", "-o", "page.html"]])
@pytest.mark.parametrize(
    ("content", "says"), [(None, "cannot read"), (b"{", "not valid JSON"), (b'{"nbformat": 3}', "--nbformat 4")]
)
def test_errors_about_notebooks_have_a_hint(
    lossi: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], content: bytes | None, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("bad.ipynb").write_bytes(content)
    code, out, err = lossi(command[0], "bad.ipynb", *command[1:])
    assert code == (3 if content is None else 2)
    assert out == ""
    assert says in err
    assert "Traceback" not in err
    assert not Path("page.html").exists()


def test_julia_notebooks_cannot_be_converted(lossi: Any, saved: Any) -> None:
    code, _, err = lossi("script", str(saved("x = 1", language="julia")))
    assert code == 2
    assert "Julia" in err


def test_target_in_a_missing_folder(lossi: Any, saved: Any, tmp_path: Path) -> None:
    code, _, err = lossi("script", str(saved("x = 1")), "-o", str(tmp_path / "no" / "x.py"))
    assert code == 5
    assert "does not exist" in err
