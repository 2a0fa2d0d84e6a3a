"""The state of a task, from what the scheduler says and what the job directory holds."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given, strategies as st

from lossi.contract.records import Ending, PreparedJob, Resources, TaskError, TaskExit
from lossi.contract.states import FINAL_STATES, STATES, has_ended
from lossi.jobs import times
from lossi.jobs.schedulers import JobView, TaskView
from lossi.jobs.state import reconcile
from lossi.jobs.state.reconcile import GRACE_S, LAG_S, Patience, Row, TaskFolder, job_state, task_row, task_state

NOW = 1_700_000_000.0
RUNS = JobView(True, "running", "R")
FORGOT = JobView(False)


def at(offset: float) -> str:
    return datetime.datetime.fromtimestamp(NOW + offset, datetime.UTC).isoformat()


def reconciled(
    job_view: JobView | None = RUNS,
    submitted: float | None = NOW - 100,
    *,
    view: TaskView | None = None,
    patience: Patience | None = None,
    **folder: Any,
) -> Row | None:
    """Return the state of a task of which the scheduler says ``view`` and whose folder holds the rest."""
    return task_state(TaskFolder(**folder), view, job_view, now=NOW, submitted=submitted, patience=patience or Patience())


def state_of(*args: Any, **more: Any) -> tuple[str, bool] | None:
    row = reconciled(*args, **more)
    return None if row is None else (row["state"], bool(row["final"]))


def whole_row(
    job: PreparedJob, submitted: str, folder: TaskFolder, view: TaskView, patience: Patience | None = None
) -> dict[str, Any]:
    """Return the row of task 3."""
    state = task_state(folder, view, RUNS, now=NOW, submitted=None, patience=patience or Patience())
    assert state is not None
    return task_row(job, 3, submitted, folder, view, state)


def exit_record(state: str, **more: Any) -> TaskExit:
    return TaskExit(0, state, **{"ended": at(-1), **more})


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_an_exit_record_settles_a_task_that_the_scheduler_has_forgotten(state: str) -> None:
    assert state_of(FORGOT, exit=exit_record(state), changed=NOW) == (state, True)
    assert state_of(None, exit=exit_record(state), changed=NOW) == (state, True)


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_an_exit_record_wins_over_a_scheduler_that_still_says_running(state: str) -> None:
    record = exit_record(state, exit_code=1)
    assert state_of(exit=record, view=TaskView("running"), changed=NOW) == (state, False), "the scheduler's end is waited for"
    late = exit_record(state, exit_code=1, ended=at(-GRACE_S))
    assert state_of(exit=late, view=TaskView("running"), changed=NOW) == (state, True), "but not for long"


def test_a_success_stays_a_success_whatever_the_scheduler_says() -> None:
    for word in STATES:
        state = state_of(exit=exit_record("succeeded"), view=TaskView(word), changed=NOW)
        assert state == ("succeeded", has_ended(word))


@pytest.mark.parametrize("why", ["timed_out", "out_of_memory", "node_failed", "preempted"])
@pytest.mark.parametrize(
    "record", [{"state": "cancelled"}, {"state": "failed", "signal": 9}, {"state": "failed", "written_by": "script"}]
)
def test_the_scheduler_knows_why_it_stopped_a_task(why: str, record: dict[str, Any]) -> None:
    state = reconciled(RUNS, None, exit=exit_record(**record), view=TaskView(why, "TIMEOUT", "limit of 60 s"), changed=NOW)
    assert state == {"state": why, "reason": "limit of 60 s", "scheduler_state": "TIMEOUT", "final": 1}


def test_a_program_that_failed_by_itself_is_failed() -> None:
    own = exit_record("failed", exit_code=1, error=TaskError("ValueError", "no"))
    assert state_of(exit=own, view=TaskView("timed_out"), changed=NOW) == ("failed", True)


def test_the_schedulers_note_explains_an_exit_record_of_the_script() -> None:
    ending = Ending("out_of_memory", "it used 9 GiB of 8")
    state = reconciled(FORGOT, None, exit=exit_record("failed", signal=9, written_by="script"), ending=ending, changed=NOW)
    assert state is not None
    assert (state["state"], state["reason"]) == ("out_of_memory", "it used 9 GiB of 8")
    assert state_of(exit=exit_record("failed", exit_code=1), ending=ending, changed=NOW) == ("failed", True)


def test_a_stopped_task_is_not_settled_before_the_scheduler_says_why() -> None:
    stopped = {"exit": exit_record("cancelled"), "view": TaskView("running"), "changed": NOW}
    assert state_of(**stopped) == ("running", False)
    assert state_of(**{**stopped, "exit": exit_record("cancelled", ended=at(-GRACE_S - 1))}) == ("cancelled", True)


def test_an_exit_record_gets_time_to_arrive() -> None:
    ended = TaskView("succeeded", ended=at(-1), started=at(-9))
    assert state_of(view=ended, changed=NOW - 9) == ("running", False)
    assert state_of(view=TaskView("succeeded", ended=at(-GRACE_S - 1)), changed=NOW - 9) == ("succeeded", True)


def test_a_task_that_never_started_needs_no_exit_record() -> None:
    assert state_of(view=TaskView("cancelled", ended=at(0))) == ("cancelled", True)
    assert state_of(JobView(True, "cancelled")) == ("cancelled", True)


def test_a_task_of_which_nothing_is_known_is_queued() -> None:
    assert state_of() is None
    assert state_of(JobView(True, "queued")) is None


def test_a_job_that_was_just_submitted_is_not_forgotten_yet() -> None:
    assert state_of(FORGOT, NOW - LAG_S + 1) is None
    assert state_of(FORGOT, NOW - LAG_S - 1) == ("unknown", False)


def test_a_task_with_a_folder_runs_if_nobody_can_be_asked() -> None:
    assert state_of(None, changed=NOW) == ("running", False)
    assert state_of(JobView(True, "unknown"), changed=NOW) == ("running", False)
    assert state_of(None) is None


def test_an_unknown_state_breaks_nothing() -> None:
    assert state_of(view=TaskView("levitating", "LEVITATING")) == ("unknown", False)
    assert state_of(exit=exit_record("levitating"), changed=NOW) == ("unknown", True)


@given(st.dictionaries(st.sampled_from(STATES), st.integers(0, 3)))
def test_a_job_runs_while_a_task_runs_and_then_is_as_bad_as_its_worst(counts: dict[str, int]) -> None:
    state = job_state(counts)
    there = {name for name, number in counts.items() if number}
    if "running" in there:
        assert state == "running"
    elif "queued" in there:
        assert state == "queued"
    elif there:
        assert state in there
        assert state != "succeeded" or there == {"succeeded"}


def test_the_worst_end_of_a_task_is_the_jobs() -> None:
    order = ["failed", "out_of_memory", "timed_out", "node_failed", "preempted", "cancelled", "succeeded"]
    for number, state in enumerate(order):
        assert job_state(dict.fromkeys(order[number:], 1)) == state


def test_a_settled_task_has_its_derived_figures() -> None:
    job = PreparedJob("id", "n", "notebook", "/p", "u", "", resources=Resources(cpus=2, memory_mb=1000, gpus=4))
    record = exit_record(
        "succeeded", started=at(-3601), ended=at(-1), elapsed_s=3600.0, cpu_s=3600.0, max_rss_mb=250.0, host="n1", exit_code=0
    )
    row = whole_row(job, at(-3661), TaskFolder(record, changed=NOW), TaskView("succeeded", "COMPLETED"))
    expected = {
        "task": 3,
        "wait_s": 60.0,
        "elapsed_s": 3600.0,
        "cpu_efficiency": 0.5,
        "memory_efficiency": 0.25,
        "gpu_hours": 4.0,
        "host": "n1",
        "exit_code": 0,
        "final": 1,
        "scheduler_state": "COMPLETED",
        "notes": "[]",
    }
    assert {name: row[name] for name in expected} == expected


def test_a_running_task_has_no_end_and_no_figures_that_grow() -> None:
    job = PreparedJob("id", "n", "notebook", "/p", "u", "")
    folder, view = TaskFolder(changed=NOW), TaskView("running", "R", host="n1", started=at(-5))
    row = whole_row(job, at(-6), folder, view)
    expected = {"state": "running", "host": "n1", "wait_s": 1.0, "elapsed_s": None, "ended": None, "final": 0}
    assert {name: row[name] for name in expected} == expected
    assert row == whole_row(job, at(-6), folder, view)


@pytest.mark.parametrize("text", ["", None, "yesterday", "2024-13-01T00:00:00Z"])
def test_a_text_that_is_no_time_is_none(text: str | None) -> None:
    assert times.seconds(text) is None


def test_times_are_read_with_and_without_a_zone() -> None:
    assert (
        times.seconds("2023-11-14T22:13:20Z")
        == times.seconds("2023-11-14T22:13:20+00:00")
        == times.seconds("2023-11-14T22:13:20")
        == NOW
    )


ACCOUNTS = Patience(exit_s=60.0, notice_s=90.0, facts=True)
FIGURES = {
    "partition": "gpu",
    "elapsed_s": 40.0,
    "cpu_s": 30.0,
    "cpus": 2,
    "memory_mb": 1000.0,
    "max_rss_mb": 250.0,
    "gpu_hours": 0.5,
}


def test_the_exit_record_of_an_earlier_attempt_does_not_end_a_restarted_task() -> None:
    record = exit_record("cancelled", attempt=1)
    for word in ("queued", "running"):
        view = TaskView(word, "PENDING", restarts=1, as_of=NOW)
        assert state_of(exit=record, view=view, changed=NOW) == (word, False)
    assert state_of(exit=record, view=TaskView("queued", as_of=NOW), changed=NOW) == ("queued", False)
    again = exit_record("succeeded", attempt=2)
    assert state_of(exit=again, view=TaskView("succeeded", restarts=1), changed=NOW) == ("succeeded", True)


def test_a_task_that_began_after_the_queue_was_read_is_running() -> None:
    old = TaskView("queued", "PENDING", as_of=NOW - 20)
    assert state_of(view=old, changed=NOW - 5) == ("running", False)
    assert state_of(view=old, changed=NOW - 25) == ("queued", False), "an earlier attempt's folder"


def test_the_figures_of_a_scheduler_that_accounts_for_tasks_are_waited_for() -> None:
    record = exit_record("succeeded")
    assert state_of(exit=record, view=None, changed=NOW, patience=ACCOUNTS) == ("succeeded", False)
    closed = TaskView("succeeded", "COMPLETED", facts=FIGURES, accounted=True)
    assert state_of(exit=record, view=closed, changed=NOW, patience=ACCOUNTS) == ("succeeded", True)
    old = exit_record("succeeded", ended=at(-reconcile.FACTS_PATIENCE_S))
    assert state_of(exit=old, view=None, changed=NOW, patience=ACCOUNTS) == ("succeeded", True), "but not for ever"


def test_a_task_that_was_told_to_stop_is_cancelled_only_when_the_user_asked_or_the_scheduler_says_so() -> None:
    record = exit_record("cancelled")
    assert state_of(exit=record, changed=NOW, patience=ACCOUNTS) == ("running", False)
    assert state_of(exit=record, changed=NOW, patience=ACCOUNTS, cancelled=True) == ("cancelled", False)
    late = exit_record("cancelled", ended=at(-90))
    assert state_of(exit=late, changed=NOW, patience=ACCOUNTS) == ("cancelled", False)


@pytest.mark.parametrize("folder", [None, NOW - 40])
def test_an_exit_record_that_a_network_filesystem_shows_late_is_waited_for(folder: float | None) -> None:
    view = TaskView("failed", "FAILED", exit_code=1, started=at(-50), ended=at(-30), facts=FIGURES, accounted=True)
    assert state_of(view=view, changed=folder, patience=ACCOUNTS) == ("running", False)
    view = TaskView("failed", "FAILED", exit_code=1, started=at(-99), ended=at(-61), facts=FIGURES, accounted=True)
    assert state_of(view=view, changed=folder, patience=ACCOUNTS) == ("failed", True)


def test_what_the_scheduler_accounted_wins_over_what_the_runner_measured() -> None:
    job = PreparedJob("j", "n", "script", "/p", "u", at(-100), resources=Resources(cpus=8, memory_mb=4000, gpus=1))
    record = exit_record("succeeded", started=at(-30), elapsed_s=20.0, cpu_s=1.0, max_rss_mb=1.0)
    view = TaskView("succeeded", "COMPLETED", facts=FIGURES, accounted=True)
    row = whole_row(job, at(-100), TaskFolder(record, changed=NOW), view, ACCOUNTS)
    assert (row["elapsed_s"], row["cpu_s"], row["max_rss_mb"], row["gpu_hours"]) == (40.0, 30.0, 250.0, 0.5)
    assert row["cpu_efficiency"] == pytest.approx(30 / (40 * 2))
    assert row["memory_efficiency"] == pytest.approx(0.25)
