"""Which value wins if a task and a person changed the same thing."""

from __future__ import annotations

import pytest

from lossi.tracking.ingest.three_way import MISSING, changes, merge_run


@pytest.mark.parametrize(
    ("theirs", "base", "ours", "written", "expected"),
    [
        ("1", "1", "1", MISSING, None),
        ("2", "1", "1", MISSING, "2"),
        ("2", "1", "2", MISSING, None),
        ("2", "1", "3", MISSING, None),
        ("2", "1", MISSING, MISSING, None),
        ("1", "1", MISSING, MISSING, None),
        ("1", MISSING, MISSING, MISSING, "1"),
        ("1", MISSING, "2", MISSING, None),
        ("2", "1", "3", "3", "2"),
        (MISSING, "1", "1", MISSING, MISSING),
        (MISSING, "1", "2", MISSING, None),
        (MISSING, "1", "2", "2", MISSING),
        (None, "1", "1", MISSING, "null"),
        ("1", None, None, MISSING, "1"),
    ],
)
def test_which_value_of_a_key_wins(theirs: object, base: object, ours: object, written: object, expected: object) -> None:
    def only(value: object) -> dict[str, object]:
        return {} if value is MISSING else {"k": value}

    result = changes(only(theirs), only(base), only(ours), only(written))
    assert result == ({} if expected is None else {"k": None if expected == "null" else expected})


def test_between_two_tasks_the_preferred_value_wins() -> None:
    assert changes({"k": "2"}, {}, {"k": "3"}, {"k": "3"}, prefer=lambda new, now: new > now) == {}
    assert changes({"k": "4"}, {}, {"k": "3"}, {"k": "3"}, prefer=lambda new, now: new > now) == {"k": "4"}


def facts(name: str = "n", status: str = "RUNNING", end: int | None = None, stage: str = "active") -> dict[str, object]:
    return {
        "name": name,
        "status": status,
        "end_time": end,
        "lifecycle_stage": stage,
        "deleted_time": 5 if stage == "deleted" else None,
    }


@pytest.mark.parametrize(
    ("theirs", "base", "ours", "expected"),
    [
        (facts(status="FINISHED", end=3), facts(), facts(), facts(status="FINISHED", end=3)),
        (facts(), facts(), facts(status="KILLED", end=2), facts(status="KILLED", end=2)),
        (facts(status="FINISHED", end=3), facts(), facts(status="KILLED", end=2), facts(status="FINISHED", end=3)),
        (facts(), facts(status="FAILED", end=2), facts(status="FAILED", end=2), facts()),
        (facts(), None, facts(status="KILLED", end=2), facts(status="KILLED", end=2)),
        (facts(status="FINISHED", end=3), None, facts(), facts(status="FINISHED", end=3)),
        (facts(name="theirs"), facts(), facts(name="ours"), facts(name="ours")),
        (facts(name="theirs"), facts(), facts(), facts(name="theirs")),
        (facts(name="theirs"), None, facts(), facts()),
        (facts(), facts(), facts(stage="deleted"), facts(stage="deleted")),
        (facts(stage="deleted"), facts(), facts(), facts(stage="deleted")),
        (facts(stage="deleted"), facts(stage="deleted"), facts(), facts()),
    ],
)
def test_which_facts_of_a_run_win(
    theirs: dict[str, object], base: dict[str, object] | None, ours: dict[str, object], expected: dict[str, object]
) -> None:
    assert merge_run(theirs, base, ours) == expected
