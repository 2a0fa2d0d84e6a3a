"""Every control that SECURITY.md claims names a test, and that test exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_named_test_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "SECURITY.md").read_text("utf-8"))
    assert len(named) > 15
    for path, function in named:
        text = (ROOT / path).read_text("utf-8")
        assert not function or f"def {function}(" in text, f"{path} has no test {function}"


def test_every_row_of_the_threat_table_names_a_test() -> None:
    table = (ROOT / "SECURITY.md").read_text("utf-8").partition("## Threats and controls")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert rows
    for row in rows:
        assert "`tests/" in row, row
