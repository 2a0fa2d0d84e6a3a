"""YAML with line numbers and limits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from lossi.files import document


def test_every_key_and_item_has_its_line() -> None:
    parsed = document.parse(b"# comment\na:\n  b: 1\n  c:\n    - x\n\n    - y\n")
    assert parsed.data == {"a": {"b": 1, "c": ["x", "y"]}}
    assert parsed.lines == {("a",): 2, ("a", "b"): 3, ("a", "c"): 4, ("a", "c", 0): 5, ("a", "c", 1): 7}
    assert parsed.line(("a", "c", 1, "not there")) == 7


def test_keys_stay_as_they_are_written() -> None:
    assert document.parse(b"no: 1\n1.10: 2\nnull: 3\n").data == {"no": 1, "1.10": 2, "null": 3}


def test_aliases_as_values_are_fine() -> None:
    assert document.parse(b"a: &x {b: [1]}\nc: *x\n").data == {"a": {"b": [1]}, "c": {"b": [1]}}


def test_alias_bomb_is_refused() -> None:
    bomb = b"a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)
    )
    with pytest.raises(document.Unreadable, match="aliases"):
        document.parse(bomb)


def test_alias_that_contains_itself_is_refused() -> None:
    with pytest.raises(document.Unreadable):
        document.parse(b"a: &a\n  b: *a\n")


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b"{a: " * 100_000, b"".join(b" " * n + b"a:\n" for n in range(40)) + b" " * 40 + b"b"]
)
def test_deep_nesting_is_refused(text: bytes) -> None:
    with pytest.raises(document.Unreadable, match="nested"):
        document.parse(text)


def test_too_many_entries_are_refused() -> None:
    with pytest.raises(document.Unreadable, match="more than"):
        document.parse(b"".join(b"- x\n" for _ in range(60_000)))


def test_huge_file_is_refused() -> None:
    with pytest.raises(document.Unreadable, match="larger"):
        document.parse(b"a: " + b"x" * document.MAX_BYTES)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"a: 1\nb: [1, 2\nc: 3\n", 3),
        (b"a: 1\n\tb: 2\n", 2),
        (b"a: 1\nb: 2\na: 3\n", 3),
        (b"a: 1\nb: \xff\n", 2),
        (b"a: 1\nb: !!python/object/apply:os.system ['touch /tmp/x']\n", 2),
        (b"a: 1\nb: !!python/name:os.system x\n", 2),
        (b"a: 1\n<<: {b: 1}\n", 2),
        (b"a: 1\n? [x, y]\n: 2\n", 2),
        (b"--- a\n--- b\n", 2),
        (b"a: 1\nb: *nobody\n", 2),
    ],
)
def test_errors_name_the_line(text: bytes, line: int) -> None:
    with pytest.raises(document.Unreadable) as caught:
        document.parse(text)
    assert caught.value.line == line


def test_fifo_and_folder_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(document.Unreadable):
            document.read(path)


def test_missing_file_is_none_and_empty_file_is_empty(tmp_path: Path) -> None:
    assert document.read(tmp_path / "no.yml") is None
    (tmp_path / "empty.yml").write_bytes(b"\n# nothing\n")
    assert document.read(tmp_path / "empty.yml") == document.Document(None)


@settings(max_examples=150)
@given(st.binary(max_size=300) | st.text(alphabet="ab:-[]{}&*!#|>'\"\n ,?%@\t<0.1", max_size=200).map(str.encode))
def test_any_bytes_give_a_document_or_an_explanation(content: bytes) -> None:
    try:
        parsed = document.parse(content)
    except document.Unreadable as error:
        assert error.message
    else:
        assert all(line >= 1 for line in parsed.lines.values())
