"""Old words stay out of the code and the documents, and documents name only files that exist."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.host("git")
ROOT = Path(__file__).parents[3]
PROSE = {
    r"\bis none of\b(?! that (name|number))": "is not one of; is not valid on",
    r"\bfor want of\b": "out of memory, …",
    r"\b(where|when|if) none is named\b": "default: …",
    r"\bstands? (as it does|so)\b": "state, reason",
    r"\bof (its|their) own (kind|accord)\b": "",
    r"\bin its stead\b": "instead",
    r"\bwithout leaving\b.*\baccount\b": "no exit record",
    r"\bits account (is (there|missing|not there|written)|of how)\b": "exit record",
    r"\bhas not \d": "does not have",
    r"\b(has|have|had) (neither|not) an?\b": "has no",
    r"\bis not to be had\b": "is not available",
    r"\bthe word of\b|\bwords? of the scheduler\b|\bscheduler's words?\b": "scheduler state, reason, message",
    r"\bwhat (is|was) asked for\b|\bas it was asked for\b": "request",
    r"\btaken in\b|\btakes? in\b|\btaking in\b": "ingest",
    r"\bbeside (it|this|that)\b": "next to it",
    r"\blies? (in|at|on|below|beside|where)\b": "is in",
    r"\b(?-i:[Tt]he job is (succeeded|failed))\b": "The job succeeded.",
    r"\bof \{?\w+\}? tasks \{?\w+\}? (failed|succeeded)\b": "1 of 3 tasks failed",
    r"\btoken has ended\b|\btoken of \w+ \w+ has ended\b": "token expired",
    r"\bmay not be (read|written)\b": "cannot be read; permission denied",
    r"\bis there no more\b|\bis no more\b": "no longer exists",
    r"\bgive[sn]? (an|the|its|their) account\b": "report",
    r"\bsay (PATH|`?--\w)": "pass PATH, pass --option",
    r"\bdoors?\b": "auth mode, client, public API",
    r"\bsights?\b": "queue view",
}
"""What a text must not say, and what it says instead."""
NAMES = frozenset({"found", "one", "said", "made", "told", "asked", "wanted", "looked", "seen", "given"})
"""Names of variables that say nothing of what they hold."""
TEXTS = (
    *("passenger-app", "ood-apps", "batch-templates", "containers", "docs", "release", "tests"),
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile", "setup.cfg", "pyproject.toml"),
)
LEFT_OUT = re.compile(r"\.(lock|svg|png|ipynb|sh\.golden)$|requirements|/recorded/|__snapshots__|test_plain_english|third-party")
PATH = re.compile(
    r"`((?:tests|docs|ood-apps|passenger-app|batch-templates|containers|release|requirements|[a-z_]+)/[\w./-]+"
    r"\.(?:py|sh|cfg|yml|md|erb|in|lock))`"
)


@cache
def _texts() -> dict[Path, str]:
    """Return the texts of the repository, without those that others wrote."""
    listed = subprocess.run(["git", "ls-files", "--", *TEXTS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.splitlines() if not LEFT_OUT.search(name)]
    return {path: path.read_text("utf-8", "replace") for path in paths if path.is_file() and not path.is_symlink()}


def _variables(node: ast.AST) -> Iterator[ast.Name]:
    """Yield the variables that a syntax tree assigns, without fields of classes: those may name a stored format's members."""
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.ClassDef) and isinstance(child, (ast.Assign, ast.AnnAssign)):
            continue
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child
        yield from _variables(child)


@pytest.mark.parametrize("pattern", PROSE)
def test_old_words_stay_out(pattern: str) -> None:
    old = re.compile(pattern, re.IGNORECASE)
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:140]}"
        for path, text in _texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if old.search(line)
    ]
    assert not hits, f"say instead: {PROSE[pattern]}\n" + "\n".join(hits)


def test_variables_say_what_they_hold() -> None:
    hits = [
        f"{path.relative_to(ROOT)}:{variable.lineno}: {variable.id}"
        for path, text in _texts().items()
        if path.suffix == ".py"
        for variable in _variables(ast.parse(text))
        if variable.id in NAMES
    ]
    assert not hits, "\n".join(hits)


def test_documents_name_files_that_exist() -> None:
    """A path in backticks with a slash and an ending is a file of the repository or of the package."""
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
        for name in PATH.findall(page.read_text("utf-8"))
        if not (ROOT / name).exists()
        and not (ROOT / "passenger-app/lossi" / name).exists()
        and not name.startswith(("bin/", "tasks/", "etc/", "form", "jupyter/"))
        and not re.search(r"\b[A-Z]+\b", name)
    ]
    assert not missing, missing


def test_lines_of_documents_are_short() -> None:
    """Text wraps at 100 characters; tables and code are as long as they are."""
    long = []
    for page in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]:
        fenced = False
        for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
            fenced ^= line.startswith("```")
            if len(line) > 100 and not fenced and not line.lstrip().startswith(("|", "<!--")):
                long.append(f"{page.relative_to(ROOT)}:{number}")
    assert not long, long
