"""The journal of a local job, and the state of its tasks that follows from it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from scheduler_jobs import JobFactory, Prepared

from lossi.contract.records import CancelRequest, Ending, TaskExit
from lossi.contract.states import CANCELLED, FAILED, NODE_FAILED, OUT_OF_MEMORY, QUEUED, RUNNING, SUCCEEDED, TIMED_OUT
from lossi.jobs.schedulers.base import TaskView
from lossi.jobs.schedulers.cancellation import merged
from lossi.jobs.schedulers.local import verdict
from lossi.jobs.schedulers.local.adapter import LocalScheduler, summary
from lossi.jobs.schedulers.local.journal import History, Journal, Started

BEGUN = Started(4711, 99, "boot", 1.5, "here", "2025-01-01T00:00:00+00:00", ("1",))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    written = Journal(tmp_path / "local.jsonl", "here")
    yield written
    written.close()


def test_history_is_what_was_written(journal: Journal) -> None:
    history = History(journal.path)
    assert history.update() is False
    journal.queued(5, Path("/state/here"))
    journal.started(0, BEGUN)
    journal.started(1, BEGUN)
    journal.started(2, BEGUN)
    journal.ending(0, CANCELLED, "cancelled by \u00e4, \u201cquoted\u201d\nand more")
    journal.requeued(2)
    assert journal.flush(durable=True)
    assert history.update()
    assert (history.host, history.queue) == ("here", Path("/state/here"))
    assert history.started == {0: BEGUN, 1: BEGUN}
    assert history.views[0].reason == "cancelled by \u00e4, \u201cquoted\u201d\nand more"
    assert history.views[1] == TaskView(RUNNING, "RUNNING", host="here", started=BEGUN.time)
    journal.ended(1, FAILED, 3, None, "why")
    journal.never_started([2, 3, 4], CANCELLED, "asked")
    assert journal.flush()
    assert history.update()
    assert (history.views[1].state, history.views[1].exit_code, history.views[1].started) == (FAILED, 3, BEGUN.time)
    assert [history.views[n].state for n in (2, 3, 4)] == [CANCELLED] * 3
    assert history.started.keys() == {0}
    assert history.ended == 4


def test_history_reads_each_byte_once(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(journal.path)
    for number in range(1000):
        journal.started(number, BEGUN)
        journal.ended(number, SUCCEEDED, 0, None, "")
    journal.flush()
    history.update()
    taken: list[object] = []
    monkeypatch.setattr(History, "_take", lambda self, line: taken.append(line))
    history.update()
    assert taken == []
    journal.requeued(3)
    journal.flush()
    history.update()
    assert len(taken) == 1


def test_history_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "local.jsonl"
    path.write_bytes(b'{"event":"queued","tasks":1,"host":"here","queue":"/q","time":"t"}\n{"event":"ended","task":0,')
    history = History(path)
    assert history.update() and not history.views
    with path.open("ab") as stream:
        stream.write(b'"state":"failed","time":"t"}\n')
    assert history.update() and history.views[0].state == FAILED


def test_history_of_another_file_by_the_same_name_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "local.jsonl"
    for number in (1, 2):
        book = Journal(tmp_path / f"{number}", "here")
        book.ended(number, SUCCEEDED, 0, None, "")
        book.flush()
        book.close()
    history = History(path)
    (tmp_path / "1").rename(path)
    history.update()
    (tmp_path / "2").rename(path)
    history.update()
    assert history.views.keys() == {2}


@pytest.mark.parametrize(
    "line", ["nonsense", "[]", '"text"', "{}", '{"event":"started","task":1}', '{"event":"ended","task":1}', "\x00"]
)
def test_line_that_makes_no_sense_is_passed_over(tmp_path: Path, line: str) -> None:
    path = tmp_path / "local.jsonl"
    path.write_text(line + '\n{"event":"ended","task":0,"state":"failed","time":"t"}\n')
    history = History(path)
    assert history.update() and history.views[0].state == FAILED


def test_journal_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "local.jsonl"
    path.write_bytes(b'{"event":"ended","ta')
    book = Journal(path, "here")
    book.ended(7, SUCCEEDED, 0, None, "")
    assert book.flush()
    book.close()
    history = History(path)
    assert history.update() and history.views.keys() == {7}


def test_journal_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    (tmp_path / "local.jsonl").symlink_to(tmp_path / "precious")
    book = Journal(tmp_path / "local.jsonl", "here")
    book.queued(1, Path("/state/here"))
    assert not book.flush()
    assert (tmp_path / "precious").read_text() == ""


@given(st.sets(st.integers(0, 60)))
def test_tasks_that_never_started_are_read_as_they_were_written(tasks: set[int]) -> None:
    path = Path(f"/tmp/lossi-test-{os.getpid()}.jsonl")
    try:
        book = Journal(path, "here")
        book.never_started(sorted(tasks), CANCELLED, "why")
        book.flush()
        book.close()
        history = History(path)
        history.update()
        assert history.views.keys() == tasks
        assert history.ended == len(tasks)
    finally:
        path.unlink(missing_ok=True)


@given(st.lists(st.integers(1, 80), max_size=6))
def test_short_writes_lose_no_line(sizes: list[int]) -> None:
    path = Path(f"/tmp/lossi-test-{os.getpid()}.jsonl")
    left = list(sizes)
    whole = os.write
    try:
        book = Journal(path, "here")
        for number in range(5):
            book.ended(number, SUCCEEDED, 0, None, "")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "write", lambda fd, data: whole(fd, data[: left.pop()] if left else data))
            assert book.flush()
        book.close()
        history = History(path)
        history.update()
        assert history.views.keys() == set(range(5))
    finally:
        path.unlink(missing_ok=True)


def exit_status(code: int) -> int:
    return code << 8


@pytest.mark.parametrize(
    ("account", "ending", "status", "restarted", "state", "words"),
    [
        (None, None, exit_status(0), False, SUCCEEDED, ""),
        (None, None, exit_status(3), False, FAILED, "exit code 3"),
        (None, None, exit_status(139), False, FAILED, "SIGSEGV"),
        (None, None, exit_status(255), False, FAILED, "exit code 255"),
        (None, None, int(signal.SIGKILL), False, FAILED, "SIGKILL"),
        (None, None, None, False, FAILED, "no exit record"),
        (None, None, None, True, NODE_FAILED, "restarted"),
        (None, Ending(TIMED_OUT, "limit"), int(signal.SIGKILL), False, TIMED_OUT, "limit"),
        (None, Ending(CANCELLED, "asked"), exit_status(0), False, CANCELLED, "asked"),
        (None, Ending(CANCELLED, "asked"), None, True, CANCELLED, "asked"),
        (TaskExit(0, SUCCEEDED), None, None, True, SUCCEEDED, ""),
        (TaskExit(0, SUCCEEDED), Ending(CANCELLED, "asked"), exit_status(143), False, SUCCEEDED, ""),
        (TaskExit(0, FAILED, reason="own"), None, exit_status(1), False, FAILED, "own"),
        (TaskExit(0, FAILED, reason="own"), Ending(OUT_OF_MEMORY, "used"), exit_status(1), False, OUT_OF_MEMORY, "used"),
        (TaskExit(0, TIMED_OUT, reason="in cell 3"), Ending(TIMED_OUT, "limit"), exit_status(1), False, TIMED_OUT, "in cell 3"),
        (TaskExit(0, RUNNING), None, exit_status(3), False, FAILED, "exit code 3"),
    ],
)
def test_end_of_a_task_is_decided_by_who_knows_best(
    account: TaskExit | None, ending: Ending | None, status: int | None, restarted: bool, state: str, words: str
) -> None:
    end = verdict.of_end(account, ending, status, restarted=restarted)
    assert end.state == state and words in end.reason
    fixed = verdict.corrected(account, end, task=0, host="h", started="s", ended="e", elapsed_s=1.0)
    assert (fixed or account) is not None
    assert (fixed or account).state == state  # type: ignore[union-attr]


def test_requests_to_cancel_add_up_and_never_shrink() -> None:
    assert merged(None, CancelRequest("t", "u", [1])).tasks == [1]
    assert merged(CancelRequest("t", "u", [3]), CancelRequest("t", "u", [1, 3])).tasks == [1, 3]
    assert merged(CancelRequest("t", "u", None), CancelRequest("t", "u", [1])).tasks is None
    assert merged(CancelRequest("t", "u", [1]), CancelRequest("t", "u", None)).tasks is None


def test_state_of_a_job_follows_from_its_tasks(tmp_path: Path) -> None:
    handle = Prepared(JobFactory(tmp_path, LocalScheduler(tmp_path))("true", tasks=2).job, tmp_path).handle
    ends = {name: TaskView(name, reason=name) for name in (SUCCEEDED, FAILED, CANCELLED, TIMED_OUT)}
    assert summary(handle, {}).state == QUEUED
    assert summary(handle, {0: ends[SUCCEEDED]}).state == RUNNING
    assert summary(handle, {0: ends[SUCCEEDED], 1: ends[SUCCEEDED]}).state == SUCCEEDED
    assert summary(handle, {0: ends[SUCCEEDED], 1: ends[CANCELLED]}).state == CANCELLED
    assert summary(handle, {0: ends[FAILED], 1: ends[TIMED_OUT]}).reason == FAILED
