"""What programs print reaches terminals and spreadsheets as text only."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, strategies as st

from lossi.files.text import csv_cell, neutralised


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain\n\ttext é ☃\n", "plain\n\ttext é ☃\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;owned\x07title", "title"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;ZXZpbA==\x07clip", "clip"),
        ("\x9b31mred\x9bm", "red"),
        ("\x1bc\x1b(Bx", "x"),
        ("10%\r20%\r\n", "10%\n20%\n"),
        ("a\x00b\x07c\x7fd\x08", "abcd"),
        ("rm \u202egnp.exe", "rm gnp.exe"),
        ("half\x1b[", "half"),
        ("bad \udcff byte", "bad \ufffd byte"),
        ("\x1b]unfinished\nnext line stays", "\nnext line stays"),
    ],
)
def test_neutralised(raw: str, shown: str) -> None:
    assert neutralised(raw) == shown


@given(st.text(alphabet=st.one_of(st.sampled_from("\x1b[]0;m\x07\\\r\n\x9b\x9d\u202e\udcffPX^_c"), st.characters())))
def test_no_control_character_is_ever_left(raw: str) -> None:
    shown = neutralised(raw)
    assert all(c in "\n\t" or (c >= " " and not "\x7f" <= c <= "\x9f") for c in shown)
    shown.encode("utf-8")
    assert neutralised(shown) == shown


@given(
    st.text(
        alphabet=st.characters(
            min_codepoint=32,
            exclude_categories=("Cc", "Cs"),
            exclude_characters="\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
        )
    )
)
def test_ordinary_text_is_kept(raw: str) -> None:
    assert neutralised(raw) == raw


@pytest.mark.parametrize(
    "formula", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", " =HYPERLINK(1)", "＝1", "\r=1", "-rf", "+-1"]
)
def test_formulas_become_text(formula: str) -> None:
    assert csv_cell(formula) == f"'{formula}"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        (-0.5, "-0.5"),
        ("-0.5", "-0.5"),
        ("+1e-3", "+1e-3"),
        ("-inf", "-inf"),
        (True, "True"),
        (3, "3"),
        ("adam", "adam"),
        (float("nan"), "nan"),
        (["=1"], "['=1']"),
        ('a,b\n"c"', 'a,b\n"c"'),
    ],
)
def test_values_stay_as_they_are(value: object, cell: str) -> None:
    assert csv_cell(value) == cell


@given(st.text())
def test_csv_round_trip_never_starts_a_formula(value: str) -> None:
    out = io.StringIO()
    csv.writer(out).writerow([csv_cell(value), "x"])
    cell = next(csv.reader(io.StringIO(out.getvalue(), newline="")))[0]
    try:
        float(cell)
    except ValueError:
        assert cell[:1] not in ("=", "+", "-", "@")
