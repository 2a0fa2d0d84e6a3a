"""Job ids."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from lossi.jobs import ulid


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_ids_sort_by_time_and_keep_it(first: float, second: float) -> None:
    a, b = ulid.new(first), ulid.new(second)
    assert ulid.is_ulid(a)
    assert abs(ulid.moment(a) - first) < 0.0011
    if second - first > 0.001:
        assert a < b


def test_ids_of_the_same_time_differ() -> None:
    assert len({ulid.new(1.0) for _ in range(1000)}) == 1000


def test_the_format_is_that_of_the_specification() -> None:
    assert ulid.new(1469918176.385)[:10] == "01aryz6s41"  # the example of the specification


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        "01aryz6s41",
        "01ARYZ6S41TSV4RRFFQ69G5FAV",
        "01aryz6s41tsv4rrffq69g5fai",
        "81aryz6s41tsv4rrffq69g5fav",
        "01aryz6s41tsv4rrffq69g5fav\n",
    ],
)
def test_other_text_is_not_an_id(text: str) -> None:
    assert not ulid.is_ulid(text)
