"""Scripts made from notebooks, run for real (without MLflow: see test_script_same_metrics.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from lossi import notebooks
from lossi.errors import NotSupported

Run = Callable[..., subprocess.CompletedProcess[str]]
PRINTED = "import json, sys\nprint(json.dumps([lr, use_it, layers, options, name, n_steps, thing]))\nassert sys.argv[1:] == []"
PARAMETERS = (
    "lr: float = 0.1  # rate, 100% sure\nuse_it = True\nlayers = [1, 2]\noptions = {'a': 1}\nname = 'x'\nn_steps = 3\nthing = None",
    "parameters",
)


@pytest.fixture
def run(tmp_path: Path, notebook: Any) -> Run:
    """Convert the cells to a script and run it."""

    def convert_and_run(*cells: Any, arguments: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        script = notebooks.script(notebooks.read(notebook(*cells)))
        assert (script.language, script.suffix) == ("python", ".py")
        path = tmp_path / "script.py"
        path.write_bytes(script.text.encode("utf-8"))
        environment = {**os.environ, "HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython"), "PYTHONIOENCODING": "utf-8"}
        return subprocess.run(
            [sys.executable, str(path), *(arguments or [])],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            timeout=120,
        )

    return convert_and_run


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ([], [0.1, True, [1, 2], {"a": 1}, "x", 3, None]),
        (["--lr", "-1e-3", "--no-use-it", "--layers", "[3]", "--options", '{"b": null}', "--name", "-x", "--n-steps", "4", "--thing", "[1]"],
         [-0.001, False, [3], {"b": None}, "-x", 4, [1]]),
        (["--lr=1", "--use_it=false", "--n_steps=-2", "--name=", "--thing=abc"], [1.0, False, [1, 2], {"a": 1}, "", -2, "abc"]),
        (["--use-it", "--name", "--lr"], [0.1, True, [1, 2], {"a": 1}, "--lr", 3, None]),
        (["--no-use_it", "--name", "$(rm) `x` \"'\n\\ é漢😀\x85\u2028", "--thing", "None"],
         [0.1, False, [1, 2], {"a": 1}, "$(rm) `x` \"'\n\\ é漢😀\x85\u2028", 3, None]),
        (["--name", "x" * 100_000], [0.1, True, [1, 2], {"a": 1}, "x" * 100_000, 3, None]),
    ],
)  # fmt: skip
def test_flags_arrive_as_values(run: Run, arguments: list[str], result: list[Any]) -> None:
    done = run(PARAMETERS, PRINTED, arguments=arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == result


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--lr", "fast"], "argument --lr: expected a number, not 'fast'"),
        (["--n-steps", "1.5"], "expected a whole number, not '1.5'"),
        (["--layers", '{"a": 1}'], "expected a JSON list"),
        (["--options", "{a: 1}"], "expected a JSON object"),
        (["--use-it=perhaps"], "expected true or false"),
        (["--learning-rate", "1"], "unrecognized arguments"),
        (["--n"], "unrecognized arguments"),
        (["--lr"], "expected one argument"),
    ],
)
def test_wrong_flags_end_before_any_cell_runs(run: Run, arguments: list[str], says: str) -> None:
    done = run("print('cell')", PARAMETERS, PRINTED, arguments=arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_help_lists_comments_and_defaults_without_running_a_cell(run: Run) -> None:
    done = run("md:# A 100% title", "raise SystemExit(9)", PARAMETERS, arguments=["--help"])
    assert done.returncode == 0
    for part in ("A 100% title", "rate, 100% sure (default: 0.1)", "--no-use-it", "--n-steps INT", "(default: {'a': 1})"):
        assert part in done.stdout


def test_required_parameter_and_names_that_clash(run: Run) -> None:
    cells = (
        ("data: str\nhelp = 1\nx = True\nno_x = 'n'\nh = 2\n_private = 3", "parameters"),
        "print(data, help, x, no_x, h, _private)",
    )
    assert "the following arguments are required: --data" in run(*cells).stderr
    done = run(*cells, arguments=["--data", "d", "--help", "5", "--no-x", "--no_x", "q", "--h=6", "--_private", "7"])
    assert done.stdout == "d 5 False q 6 7\n", done.stderr


def test_values_replace_those_of_the_cell_at_papermills_place(run: Run) -> None:
    done = run(
        "lr = 5",
        ("lr = 0.1\nderived = lr * 10", "parameters"),
        ("lr = 7", "injected-parameters"),
        "print(lr, derived)",
        arguments=["--lr", "2"],
    )
    assert done.stdout == "2.0 1.0\n"
    assert run("lr = 5", ("lr = 0.1", "parameters"), ("lr = 7", "injected-parameters"), "print(lr)").stdout == "7\n"


def test_notebook_without_tagged_cell_refuses_flags(run: Run) -> None:
    assert run("print('ran')").stdout == "ran\n"
    assert run("print('ran')", arguments=["--lr", "1"]).returncode == 2


def test_magics_shell_lines_and_display_run(run: Run) -> None:
    done = run(
        "%load_ext autoreload\n%matplotlib inline\nimport os",
        'word = "it\'s"\n!echo "$word {1 + 1}"\nfiles = !ls /\nassert \'tmp\' in files',
        "%env LOSSI_WORD=bar\nassert os.environ['LOSSI_WORD'] == 'bar'",
        "%time total = sum(range(5))\nprint('total', total)",
        "%%time\ninner = 1\nif inner:\n    !true",
        "%%capture out\nprint('hidden')",
        "assert out.stdout == 'hidden\\n'",
        "%%bash\necho \"from 'bash'\" \\\n  continued",
        "result = %timeit -n1 -r1 -q -o sum([1])\nassert result.loops == 1",
        "display('shown')\nos?",
        "assert get_ipython().user_ns['total'] == 10\nassert __name__ == '__main__'",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:6] == ["it's 2", "env: LOSSI_WORD=bar", "total 10", "from 'bash' continued", "'shown'", ""]


def test_top_level_await_and_running_loop(run: Run) -> None:
    done = run(
        "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x",
        "a = await f(1)\nb = [await f(i) for i in range(3)]",
        "task = asyncio.create_task(f(7))",
        "async def g():\n    yield 3\nasync for c in g(): pass",
        "print(a, b, await task, c)",
        "def plain(): return a\nprint(plain())",
    )
    assert done.stdout == "1 [0, 1, 2] 7 3\n1\n", done.stderr


def test_tags_of_papermill_are_kept(run: Run) -> None:
    done = run(("1 / 0", "raises-exception"), ("print('skipped')", "skip-execution"), "print('went on')")
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert "ZeroDivisionError" in done.stderr
    assert "<cell 1>" in done.stderr


def test_failing_cell_ends_the_script(run: Run) -> None:
    done = run("print('before')", "raise ValueError('mine')", "print('after')")
    assert (done.returncode, done.stdout) == (1, "before\n")
    assert "ValueError: mine" in done.stderr


def test_broken_cell_fails_where_the_notebook_would(run: Run, notebook: Any) -> None:
    cells = ("print('before')", "x = = 1", "print('after')")
    done = run(*cells)
    assert (done.returncode, done.stdout) == (1, "before\n")
    assert "SyntaxError" in done.stderr
    assert "cell 2 is not valid Python" in notebooks.script(notebooks.read(notebook(*cells))).notes[0]


def test_cells_that_clash_in_one_file_still_run(run: Run) -> None:
    done = run("x = 1", "global x\nx = 2", "from __future__ import annotations\ndef f(a: undefined): pass\nprint(x)")
    assert done.stdout == "2\n", done.stderr


def test_future_imports_move_to_the_top(run: Run) -> None:
    done = run(
        "md:# T",
        "'''docstring'''\nimport os",
        "from __future__ import annotations\ndef f(a: undefined) -> None: ...",
        "print(f.__annotations__['a'])",
    )
    assert done.stdout == "undefined\n", done.stderr


def test_spawned_processes_do_not_run_the_script_again(run: Run) -> None:
    done = run(
        "import math, multiprocessing\nwith multiprocessing.get_context('spawn').Pool(1) as pool:\n    print(pool.map(math.sqrt, [4.0]))"
    )
    assert done.stdout == "[2.0]\n", done.stderr


def test_figures_need_no_screen(run: Run) -> None:
    done = run("%matplotlib inline\nimport os\n# matplotlib\nprint(os.environ['MPLBACKEND'])")
    assert done.stdout == "Agg\n"


def test_empty_and_markdown_only_notebooks_become_scripts(run: Run) -> None:
    assert run().returncode == 0
    assert run("md:# Only\n\ntext", "", "   \n").returncode == 0


@given(text=st.text(), title=st.text())
def test_text_of_markdown_never_becomes_code(notebook: Any, text: str, title: str) -> None:
    content = notebook("md:" + text, ("x = 1  # " + "".join(title.split()), "parameters"), title=title)
    script = notebooks.script(notebooks.read(content))
    script.text.encode("utf-8")
    compile(script.text, "script", "exec")
    marked = script.text.split("# %% [markdown]\n", 1)[1].split("\n# %% parameters", 1)[0]
    assert all(line.startswith("#") or not line for line in marked.split("\n"))


def test_lone_surrogates_in_the_notebook_are_escaped(run: Run) -> None:
    done = run("print(ascii('\ud83d'))")
    assert done.stdout == "'\\ud83d'\n", done.stderr


def test_copied_functions_run_on_python_3_9() -> None:
    import ast
    import inspect

    from lossi.notebooks import script_parts

    ast.parse(inspect.getsource(script_parts), feature_version=(3, 9))


@pytest.mark.parametrize("language", ["julia", None])
def test_other_languages_are_refused(notebook: Any, language: str | None) -> None:
    with pytest.raises(NotSupported) as caught:
        notebooks.script(notebooks.read(notebook("let x = 1;", language=language)))
    assert "Python or R" in caught.value.hint
