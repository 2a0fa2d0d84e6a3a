from __future__ import annotations

import ast
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from lossi.notebooks import ipython

STANDARD_LIBRARY = Path(sysconfig.get_paths()["stdlib"])


@pytest.mark.parametrize(
    "name",
    ["argparse.py", "inspect.py", "typing.py", "turtle.py", "pydoc.py", "tarfile.py", "_pydecimal.py", "test/test_grammar.py"],
)
def test_plain_python_stays_as_it_is(name: str) -> None:
    path = STANDARD_LIBRARY / name
    if not path.exists():
        path = STANDARD_LIBRARY / "ast.py"
    source = path.read_text("utf-8")
    assert ipython.translated(source) == ipython.Translation(source)
    assert ipython.masked(source) == source


def test_logical_lines_agree_with_the_syntax_tree() -> None:
    source = (STANDARD_LIBRARY / "statistics.py").read_text("utf-8")
    starts = {line.first + 1 for line in ipython.logical_lines(source)}
    for statement in ast.parse(source).body:
        assert min([statement.lineno, *(node.lineno for node in getattr(statement, "decorator_list", []))]) in starts


@given(source=st.text(st.sampled_from("ab =%!?()[]'\"\\\n#\t{}:;,01")))
def test_logical_lines_contain_the_whole_text(source: str) -> None:
    lines = [line for logical in ipython.logical_lines(source) for line in logical.lines]
    assert "\n".join(lines) == source
    assert ipython.masked(source).count("\n") == source.count("\n")
    ipython.translated(source)


@pytest.mark.parametrize(
    "cell",
    [
        "!ls -l 'a b'",
        "!!ls",
        "files = !ls *.csv",
        "a, b = !ls",
        "d['k'] = !ls",
        "%env FOO=bar baz",
        "%cd /tmp",
        "t = %timeit -o f(x)",
        "if x:\n    !touch file\n    %env A=1\nelse:\n    y = !cat file\n",
        "!pip install \\\n    torch",
        '%%bash -e\necho "it\'s" $HOME\n',
        "%%writefile a.py\nx = '''\n'''\n",
        "x = '''\n!no\n'''\n!yes",
        "x = (1\n%2)\n!ls",
        "%run other.ipynb",
    ],
)
def test_magics_translate_as_in_ipython(cell: str) -> None:
    ours = ipython.translated(cell)
    assert ours.needs_ipython
    theirs = TransformerManager().transform_cell(cell)
    assert ast.dump(ast.parse(ours.code)) == ast.dump(ast.parse(theirs))


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("%matplotlib inline\nx = 1", "# %matplotlib inline\nx = 1"),
        ("%load_ext autoreload\n%autoreload 2", "# %load_ext autoreload\n# %autoreload 2"),
        ("if x:\n    %matplotlib inline", "if x:\n    pass  # %matplotlib inline"),
        ("x?\n?y\nnp.array??\n%env?", "# x?\n# ?y\n# np.array??\n# %env?"),
        ("%time x = f(1)", "x = f(1)"),
        ("y = %time f(1)", "y = f(1)"),
        ("%%time\nx = 1\n%matplotlib inline", "# %time\nx = 1\n# %matplotlib inline"),
        ("\n%%capture --no-stderr\nx = 1", "# %capture --no-stderr\nx = 1"),
        ("%%html\n<b>\n%%x", "# %html\n# <b>\n# %%x"),
        (">>> x = 1\n>>> for i in x:\n...     y", "x = 1\nfor i in x:\n    y"),
        ("  x = 1\n  y = 2", "x = 1\ny = 2"),
        ("%config InlineBackend.figure_format = 'retina'", "# %config InlineBackend.figure_format = 'retina'"),
        ('"""why?"""\n"""what?\nthat?"""', '"""why?"""\n"""what?\nthat?"""'),
        ("x = 'a?'\ny = f(b)  # really?", "x = 'a?'\ny = f(b)  # really?"),
        ("s = 'x = !ls'; t = \"%d\" % 3", "s = 'x = !ls'; t = \"%d\" % 3"),
        ("a != b\nc %= 2\nd = e \\\n%f", "a != b\nc %= 2\nd = e \\\n%f"),
    ],
)
def test_display_only_syntax_becomes_a_comment(cell: str, code: str) -> None:
    assert ipython.translated(cell) == ipython.Translation(code)


def test_automagic_lines() -> None:
    assert ipython.translated("pip install torch").code == "get_ipython().run_line_magic('pip', 'install torch')"
    assert ipython.translated("pip = 3\nls\ncd (x)").code == "pip = 3\nls\ncd (x)"


@given(text=st.text())
def test_literal_is_exact(text: str) -> None:
    assert ast.literal_eval(ipython.literal(text)) == text
