"""One job of Lossi as one or several Slurm jobs."""

from __future__ import annotations

from hypothesis import given, strategies as st

from lossi.jobs.schedulers.slurm import array_chunks
from lossi.jobs.schedulers.slurm.array_chunks import Part


@given(st.integers(1, 100_000), st.one_of(st.none(), st.integers(1, 30_000)))
def test_parts_hold_every_task_once_and_none_is_too_large(tasks: int, most: int | None) -> None:
    found = array_chunks.split(tasks, most)
    assert [part.offset for part in found] == list(range(0, tasks, found[0].tasks))
    assert sum(part.tasks for part in found) == tasks
    assert most is None or max(part.tasks for part in found) <= most


@given(st.integers(1, 5_000), st.integers(1, 1001), st.data())
def test_the_text_of_parts_reads_back_in_any_order_of_ids(tasks: int, most: int, data: st.DataObject) -> None:
    found = array_chunks.split(tasks, most)
    ids = data.draw(st.lists(st.integers(1, 2**31), min_size=len(found), max_size=len(found), unique=True))
    submitted = [Part(part.offset, part.tasks, number) for part, number in zip(found, ids, strict=True)]
    assert array_chunks.parse(array_chunks.dump(submitted), tasks) == submitted


@given(st.integers(1, 5_000), st.integers(1, 500), st.integers(1, 5_000))
def test_parts_side_by_side_keep_to_the_throttle_of_the_whole(tasks: int, most: int, throttle: int) -> None:
    found = array_chunks.split(tasks, most)
    shares = [share or 0 for share in array_chunks.throttles(found, throttle)]
    assert min(shares) >= 1
    assert sum(shares) == max(throttle, len(found))
