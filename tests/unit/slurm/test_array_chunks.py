"""One job of Lossi as one or several Slurm jobs."""

from __future__ import annotations

from hypothesis import given, strategies as st

from lossi.jobs.schedulers.slurm import array_chunks
from lossi.jobs.schedulers.slurm.array_chunks import ArrayChunk


@given(st.integers(1, 100_000), st.one_of(st.none(), st.integers(1, 30_000)))
def test_chunks_hold_every_task_once_and_none_is_too_large(tasks: int, most: int | None) -> None:
    chunks = array_chunks.split(tasks, most)
    assert [chunk.offset for chunk in chunks] == list(range(0, tasks, chunks[0].tasks))
    assert sum(chunk.tasks for chunk in chunks) == tasks
    assert most is None or max(chunk.tasks for chunk in chunks) <= most


@given(st.integers(1, 5_000), st.integers(1, 1001), st.data())
def test_the_text_of_chunks_reads_back_in_any_order_of_ids(tasks: int, most: int, data: st.DataObject) -> None:
    chunks = array_chunks.split(tasks, most)
    ids = data.draw(st.lists(st.integers(1, 2**31), min_size=len(chunks), max_size=len(chunks), unique=True))
    submitted = [ArrayChunk(chunk.offset, chunk.tasks, number) for chunk, number in zip(chunks, ids, strict=True)]
    assert array_chunks.parse(array_chunks.dump(submitted), tasks) == submitted


@given(st.integers(1, 5_000), st.integers(1, 500), st.integers(1, 5_000))
def test_chunks_at_the_same_time_keep_to_the_throttle_of_the_whole(tasks: int, most: int, throttle: int) -> None:
    chunks = array_chunks.split(tasks, most)
    shares = [share or 0 for share in array_chunks.throttles(chunks, throttle)]
    assert min(shares) >= 1
    assert sum(shares) == max(throttle, len(chunks))
