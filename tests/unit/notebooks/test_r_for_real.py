"""R notebooks and values in R, run by R itself: scripts with Rscript, the injected cell in the R kernel."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lossi import notebooks
from lossi.runner import r_translator

pytestmark = pytest.mark.host("Rscript", "R")

HOSTILE = 'he said "hi"\\ $(rm) `x` \n\t\x01 é 漢 😀 \x85 \u2028 \' %d #{x} \\"); q()'
PARAMETERS = (
    "lr <- 0.1  # rate, 100% sure\nsteps <- 3L\nuse_it <- TRUE\nlayers <- c(1, 2)\noptions.x <- list(a = 1)\nname <- 'x'\nthing <- NULL",
    "parameters",
)
PRINTED = 'cat(deparse(list(lr, steps, use_it, layers, options.x, thing), width.cutoff = 500L), "\\n"); cat(utf8ToInt(name))'
Run = Callable[..., subprocess.CompletedProcess[str]]
CHECKS = """
stopifnot(
  identical(a, 1L), identical(b, 2.5), is.null(n), isTRUE(d), identical(f, c(1L, 2L, 3L)), identical(g, c(1, 2.5, NA)),
  identical(h, c("a", NA)), identical(k, c(TRUE, NA)), identical(j, list(1L, "a", NULL, 1L)), length(m) == 0, is.list(m),
  identical(names(l)[1:3], c("", "a b", 'c"d')), nchar(names(l)[[4]]) == 20000, is.nan(nan), identical(inf, c(Inf, -Inf, NaN)),
  identical(o, list()), p == 1e12, identical(q, c(1e12, 1)), identical(r, list(NULL, NULL)), nchar(huge) == 1e6, tiny > 0,
  nchar(escapes) == 300000, largest == .Machine$double.xmax, length(many) == 20000, identical(learning.rate, 0.1)
)
cat(utf8ToInt(hostile))
"""
VALUES = {
    "a": 1, "b": 2.5, "n": None, "d": True, "hostile": HOSTILE, "f": [1, 2, 3], "g": [1, 2.5, None], "h": ["a", None], "k": [True, None],
    "j": [1, "a", None, [1]], "m": {}, "l": {"": 1, "a b": [1], 'c"d': {"x": None}, "z" * 20000: 1}, "nan": math.nan,
    "inf": [math.inf, -math.inf, math.nan], "o": [], "p": 10**12, "q": [10**12, 1], "r": [None, None], "huge": "x" * 1_000_000,
    "escapes": 'é"\\' * 100_000, "tiny": 5e-324, "largest": sys.float_info.max, "many": list(range(20000)), "learning.rate": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_r_reads_back_the_same_values(tmp_path: Path, locale: str) -> None:
    (tmp_path / "cell.R").write_text(r_translator.assignments(VALUES) + CHECKS, "utf-8")
    # As the kernel does: all of a cell is parsed from one text.
    code = (
        'for (.e in parse(text = paste(readLines("cell.R", encoding = "UTF-8"), collapse = "\\n"), keep.source = FALSE)) eval(.e)'
    )
    done = subprocess.run(
        ["Rscript", "--vanilla", "-e", code],
        cwd=tmp_path, env={"PATH": os.environ["PATH"], "LC_ALL": locale}, capture_output=True, text=True, errors="replace", timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [str(ord(character)) for character in HOSTILE]


def _has_ir() -> bool:
    from jupyter_client.kernelspec import KernelSpecManager

    return "ir" in KernelSpecManager().find_kernel_specs()


@pytest.mark.slow
@pytest.mark.skipif(not _has_ir(), reason="the R kernel is not on this machine")
def test_papermill_passes_values_to_an_r_notebook(tmp_path: Path, saved: Any) -> None:
    """A real kernel: the injected cell comes behind the tagged one, and hostile text arrives as text."""
    path = saved(
        ("hostile <- 'x'\nbig <- ''\nv <- c(1, 2)\nkept <- 'default'", "parameters"),
        "cat(utf8ToInt(hostile), nchar(big), sum(v), kept)",
        language="r",
    )
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[4]); from lossi.runner import r_translator; assert r_translator.register();"
        "import papermill; papermill.execute_notebook(sys.argv[1], sys.argv[2], json.load(open(sys.argv[3])), progress_bar=False)"
    )
    (tmp_path / "values.json").write_text(json.dumps({"hostile": HOSTILE, "big": "é" * 200_000, "v": [1, 2, 4]}))
    package = Path(r_translator.__file__).parents[2]
    argv = [sys.executable, "-c", code, str(path), str(tmp_path / "out.ipynb"), str(tmp_path / "values.json"), str(package)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    assert [cell["metadata"]["tags"] for cell in cells[:2]] == [["parameters"], ["injected-parameters"]]
    text = "".join("".join(output["text"]) for output in cells[2]["outputs"])
    assert text.split() == [*(str(ord(character)) for character in HOSTILE), "200000", "7", "default"]


@pytest.fixture
def run(tmp_path: Path, notebook: Any) -> Run:
    def convert_and_run(*cells: Any, arguments: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "script.R"
        path.write_text(notebooks.script(notebooks.read(notebook(*cells, language="r"))).text, "utf-8")
        return subprocess.run(
            ["Rscript", str(path), *(arguments or [])], capture_output=True, text=True, cwd=tmp_path, timeout=120
        )

    return convert_and_run


@pytest.mark.parametrize(
    ("arguments", "values", "name"),
    [
        ([], "list(0.1, 3L, TRUE, c(1, 2), list(a = 1), NULL)", "x"),
        (["--lr", "-1e-3", "--steps", "4", "--no-use-it", "--layers", "[3, 4]", "--options.x", '{"b": "c"}', "--thing", "7", "--name", "-x"],
         'list(-0.001, 4L, FALSE, 3:4, list(b = "c"), 7L)', "-x"),
        (["--lr=Inf", "--use_it=false", "--options-x={}", "--name=$(rm) `x` \"'\n\\ é漢😀", "--thing", "null"],
         "list(Inf, 3L, FALSE, c(1, 2), structure(list(), names = character(0)), NULL)", "$(rm) `x` \"'\n\\ é漢😀"),
        (["--no-use_it", "--use-it"], "list(0.1, 3L, TRUE, c(1, 2), list(a = 1), NULL)", "x"),
        (["--use-it", "true", "--layers=[]"], "list(0.1, 3L, TRUE, list(), list(a = 1), NULL)", "x"),
    ],
)  # fmt: skip
def test_flags_arrive_in_r(run: Run, arguments: list[str], values: str, name: str) -> None:
    done = run(PARAMETERS, PRINTED, arguments=arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0].strip() == values
    assert done.stdout.split("\n")[1].split() == [str(ord(character)) for character in name]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--lr", "fast"], "argument --lr: expected a number, not 'fast'"),
        (["--steps", "1.5"], "expected a whole number"),
        (["--use-it=perhaps"], "expected true or false"),
        (["--layers", "{}"], "expected a JSON list"),
        (["--options.x", "[1"], "expected a JSON object"),
        (["--learning", "1"], "unrecognized argument: --learning"),
        (["--no-lr"], "unrecognized argument: --no-lr"),
        (["--lr"], "expected one argument"),
    ],
)
def test_wrong_flags_end_before_any_cell_runs_in_r(run: Run, arguments: list[str], says: str) -> None:
    done = run("cat('cell')", PARAMETERS, PRINTED, arguments=arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""


def test_help_of_an_r_script(run: Run) -> None:
    done = run("stop('cell')", PARAMETERS, arguments=["--help"])
    assert done.returncode == 0
    assert "--use-it BOOL" in done.stdout
    assert "rate, 100% sure (default: 0.1)" in done.stdout


def test_cells_run_in_order_and_may_fail_where_tagged(run: Run) -> None:
    done = run("x <- 1", ("x <- x + 1\nstop('expected')", "raises-exception"), ("cat('skipped')", "skip-execution"), "cat(x)")
    assert (done.returncode, done.stdout) == (0, "2")
    assert "expected" in done.stderr
    assert run("cat('before')", "stop('real')", "cat('after')").returncode != 0
