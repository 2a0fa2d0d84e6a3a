from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from lossi.jobs.schedulers.slurm.rest import rows, v0_0_38, v0_0_40, v0_0_41, v0_0_42
from lossi.jobs.schedulers.slurm.rest.fields import at, epoch, moment, number, seconds, state, tasks, tres, words

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)
SENTINELS = (2**32 - 1, 2**32 - 2, 2**63 - 1, 2**64 - 1, 2**64 - 2, -1, -2, -9223372036854774808)


@given(st.integers(0, 2**31))
def test_plain_and_later_numbers_are_the_same(value: int) -> None:
    assert number(value) == number({"set": True, "infinite": False, "number": value}) == value


@pytest.mark.parametrize(
    "value", [None, True, "5", [], {}, {"set": False, "number": 5}, {"set": True, "infinite": True, "number": 5}, *SENTINELS]
)
def test_what_is_unset_or_unlimited_is_none(value: Any) -> None:
    assert number(value) is None


@given(st.integers(1, 2**31))
def test_times_are_read_back(value: int) -> None:
    text = moment(value)
    assert text is not None and text.endswith("Z") and epoch(text) == value


def test_time_zero_is_unset() -> None:
    assert moment(0) is moment(None) is moment({"set": True, "infinite": False, "number": 0}) is None


@given(st.sets(st.integers(0, 3000), min_size=1))
def test_bit_mask_names_exactly_its_tasks(chosen: set[int]) -> None:
    spans = tasks(hex(sum(1 << task for task in chosen)))
    assert spans is not None and {task for span in spans for task in span} == chosen


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0-9,20%5", (range(10), range(20, 21))),
        ("0-9998:2", (range(0, 9999, 2),)),
        ("1,3,5-9,20,200,203...%4", (range(1, 2), range(3, 4), range(5, 10), range(20, 21), range(200, 201))),
        ("12...", ()),
        ("0x0", ()),
        ("", None),
        (None, None),
    ],
)
def test_array_tasks_as_the_queue_writes_them(text: str | None, expected: tuple[range, ...] | None) -> None:
    assert tasks(text) == expected


def test_state_is_one_word_or_a_list_with_flags() -> None:
    assert state("PENDING") == state(["PENDING"]) == "PENDING"
    assert state(["RUNNING", "COMPLETING"]) == "COMPLETING"
    assert state(["PENDING", "REQUEUED"]) == "REQUEUED"
    assert state(None) == state([]) == state({}) == ""


def test_resources_without_an_amount_are_left_out() -> None:
    listed = [
        {"type": "cpu", "name": None, "id": 1, "count": 2},
        {"type": "energy", "name": "", "id": 3, "count": -2},
        {"type": "billing", "name": "", "id": 5, "count": None},
        {"type": "gres", "name": "gpu:a100", "id": 1002, "count": 4},
        {"type": "mem", "name": "", "id": 2, "count": 18446744073709551614},
    ]
    assert tres(listed) == {"cpu": 2, "gres/gpu:a100": 4}


@given(JSON)
def test_single_values_of_any_form_break_nothing(value: Any) -> None:
    number(value), moment(value if not isinstance(value, int) or value < 2**33 else 0), words(value), state(value)
    seconds(value), at(value, "a", "b"), rows.listed({"jobs": value}, "jobs")


@pytest.mark.parametrize("api", [v0_0_38.Api(), v0_0_40.Api(), v0_0_41.Api(), v0_0_42.Api()], ids=lambda api: api.version)
def test_records_with_nothing_in_them_break_nothing(api: Any) -> None:
    assert api.queue_row({}).job_id == 0 and api.accounting_row({}).job_id == 0
    assert api.partition({}).name == api.quality({}).name == api.association({}).account == ""
    assert api.node_groups([{}]) == [] and api.refusals({}) == [] and api.job_id({}) is None


def test_long_lists_of_tasks_are_several_addresses() -> None:
    calls = v0_0_38.Api().cancellations({7: range(0, 4000, 2)})
    assert len(calls) > 1 and all(len(call.path) < 6000 for call in calls)


def test_many_tasks_are_asked_for_in_pieces_or_as_a_whole() -> None:
    api = v0_0_42.Api()
    few = api.selected({7: range(250), 8: None}, "")
    assert [len(call.query["step"]) for call in few] == [100, 100, 51]
    (many,) = api.selected({7: range(5000)}, "")
    assert many.query["step"] == ["7"]
