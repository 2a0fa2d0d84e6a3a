"""Every control that SECURITY.md claims names a test, and that test exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "SECURITY.md").read_text("utf-8")


def _tests(text: str) -> list[tuple[str, list[str]]]:
    """Return each test file that is named, with the tests of it that follow."""
    named = re.findall(r"`(tests/[\w/]+\.py)`((?::|,|\s+`test_\w+`)*)", text)
    return [(path, re.findall(r"test_\w+", tests)) for path, tests in named]


def test_every_named_test_exists() -> None:
    named = _tests(PAGE)
    assert sum(len(tests) for _, tests in named) > 80
    assert sum(len(tests) for _, tests in named) == len(re.findall(r"`test_\w+`", PAGE))
    for path, tests in named:
        text = (ROOT / path).read_text("utf-8")
        for name in tests:
            assert f"def {name}(" in text, f"{path} has no test {name}"


def test_every_threat_names_a_test() -> None:
    threats = re.split(r"^- \*\*", PAGE.partition("## Threats and controls")[2].partition("\n## ")[0], flags=re.MULTILINE)[1:]
    assert len(threats) > 50
    for threat in threats:
        assert _tests(threat), threat
