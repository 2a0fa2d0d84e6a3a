"""The scheduler's answers on disk, shared by all processes of a user."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from lossi.errors import Unavailable
from lossi.jobs.schedulers.slurm.cache import RETRY_S, Cache
from lossi.jobs.schedulers.slurm.records import QueueRow

NUMBER = TypeAdapter(int)
ROWS = TypeAdapter(list[QueueRow])


class Source:
    """Counts the questions."""

    def __init__(self, fails: bool = False) -> None:
        self.asked = 0
        self.fails = fails

    def __call__(self) -> int:
        self.asked += 1
        if self.fails:
            raise Unavailable("the controller does not answer", hint="try again")
        return self.asked


def test_an_answer_is_asked_for_once_and_again_when_something_has_changed(tmp_path: Path) -> None:
    cache, source = Cache(tmp_path / "c"), Source()
    assert [cache.get("q", 30, NUMBER, source).value for _ in range(3)] == [1, 1, 1]
    cache.expire("q")
    assert cache.get("q", 30, NUMBER, source).value == 2
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "c" / "q.json").stat().st_mode & 0o777 == 0o600


def test_records_with_ranges_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [QueueRow(7, "lossi-x", "PENDING", (range(5), range(7, 20, 3)), reason="Priority")]
    Cache(tmp_path).get("q", 30, ROWS, lambda: rows)
    assert Cache(tmp_path).get("q", 30, ROWS, list).value == rows


def test_a_scheduler_that_does_not_answer_leaves_the_last_answer_and_is_not_asked_again_at_once(tmp_path: Path) -> None:
    cache, source = Cache(tmp_path), Source()
    first = cache.get("q", 0.0, NUMBER, source)
    source.fails = True
    for _ in range(3):
        answer = cache.get("q", 600, NUMBER, source) if source.asked > 1 else cache.get("q", 0, NUMBER, source)
        assert (answer.value, answer.as_of, answer.problem) == (1, first.as_of, "the controller does not answer")
    assert source.asked == 2
    assert RETRY_S < 60


def test_without_any_answer_the_failure_itself_is_remembered(tmp_path: Path) -> None:
    cache, source = Cache(tmp_path), Source(fails=True)
    for _ in range(3):
        with pytest.raises(Unavailable, match="does not answer"):
            cache.get("q", 30, NUMBER, source)
    assert source.asked == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "other"}', b"\xff"])
def test_a_broken_file_is_asked_for_anew(tmp_path: Path, content: bytes) -> None:
    cache, source = Cache(tmp_path), Source()
    cache.get("q", 30, NUMBER, source)
    (tmp_path / "q.json").write_bytes(content)
    assert cache.get("q", 30, NUMBER, source).value == 2


def test_a_folder_that_cannot_be_written_costs_questions_not_answers() -> None:
    cache, source = Cache(Path("/proc/no/such")), Source()
    assert [cache.get("q", 30, NUMBER, source).value for _ in range(2)] == [1, 2]


def _ask(folder: Path, log: Path, barrier: object) -> None:
    def source() -> int:
        with log.open("a") as stream:
            stream.write("asked\n")
        time.sleep(0.2)
        return 5

    barrier.wait()  # type: ignore[attr-defined]
    assert Cache(folder, wait_s=300).get("q", 30, NUMBER, source).value == 5


def test_ten_processes_at_once_ask_one_question(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(10)
    workers = [context.Process(target=_ask, args=(tmp_path / "c", tmp_path / "log", barrier)) for _ in range(10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
    assert [worker.exitcode for worker in workers] == [0] * 10
    assert (tmp_path / "log").read_text().count("asked") == 1
