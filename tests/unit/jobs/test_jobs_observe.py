"""How a task stands, from what the scheduler says and what the job directory holds."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from lossi.contract.records import Ending, PreparedJob, Resources, TaskError, TaskExit
from lossi.contract.states import FINAL_STATES, STATES, has_ended
from lossi.jobs import times
from lossi.jobs.schedulers import JobView, TaskView
from lossi.jobs.state import reconcile
from lossi.jobs.state.reconcile import GRACE_S, LAG_S, Patience, Seen, job_state, task_row, task_state

NOW = 1_700_000_000.0
RUNS = JobView(True, "running", "R")
FORGOT = JobView(False)


def at(offset: float) -> str:
    return datetime.datetime.fromtimestamp(NOW + offset, datetime.UTC).isoformat()


def look(job_view: JobView | None = RUNS, submitted: float | None = NOW - 100, **seen: Any) -> tuple[str, bool] | None:
    state = task_state(Seen(0, NOW, **seen), job_view, submitted)
    return None if state is None else (state.state, state.final)


def left(state: str, **more: Any) -> TaskExit:
    return TaskExit(0, state, **{"ended": at(-1), **more})


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_an_account_settles_a_task_that_the_scheduler_has_forgotten(state: str) -> None:
    assert look(FORGOT, exit=left(state), started_folder=NOW) == (state, True)
    assert look(None, exit=left(state), started_folder=NOW) == (state, True)


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_an_account_wins_over_a_scheduler_that_still_says_running(state: str) -> None:
    account = left(state, exit_code=1)
    assert look(exit=account, view=TaskView("running"), started_folder=NOW) == (state, False), (
        "the scheduler's word is waited for"
    )
    late = left(state, exit_code=1, ended=at(-GRACE_S))
    assert look(exit=late, view=TaskView("running"), started_folder=NOW) == (state, True), "but not for long"


def test_a_success_stays_one_whatever_the_scheduler_says() -> None:
    for word in STATES:
        found = look(exit=left("succeeded"), view=TaskView(word), started_folder=NOW)
        assert found == ("succeeded", has_ended(word))


@pytest.mark.parametrize("why", ["timed_out", "out_of_memory", "node_failed", "preempted"])
@pytest.mark.parametrize(
    "account", [{"state": "cancelled"}, {"state": "failed", "signal": 9}, {"state": "failed", "written_by": "script"}]
)
def test_the_scheduler_knows_why_it_stopped_a_task(why: str, account: dict[str, Any]) -> None:
    state = task_state(
        Seen(0, NOW, left(**account), view=TaskView(why, "TIMEOUT", "limit of 60 s"), started_folder=NOW), RUNS, None
    )
    assert state is not None
    assert (state.state, state.reason, state.scheduler_state, state.final) == (why, "limit of 60 s", "TIMEOUT", True)


def test_a_program_that_failed_by_itself_has_failed() -> None:
    own = left("failed", exit_code=1, error=TaskError("ValueError", "no"))
    assert look(exit=own, view=TaskView("timed_out"), started_folder=NOW) == ("failed", True)


def test_what_the_scheduler_left_beside_it_explains_a_fallback_account() -> None:
    ending = Ending("out_of_memory", "it used 9 GiB of 8")
    state = task_state(Seen(0, NOW, left("failed", signal=9, written_by="script"), ending, started_folder=NOW), FORGOT, None)
    assert state is not None
    assert (state.state, state.reason) == ("out_of_memory", "it used 9 GiB of 8")
    assert look(exit=left("failed", exit_code=1), ending=ending, started_folder=NOW) == ("failed", True)


def test_a_stopped_task_is_not_settled_before_the_scheduler_has_said_why() -> None:
    stopped = {"exit": left("cancelled"), "view": TaskView("running"), "started_folder": NOW}
    assert look(**stopped) == ("running", False)
    assert look(**{**stopped, "exit": left("cancelled", ended=at(-GRACE_S - 1))}) == ("cancelled", True)


def test_an_account_gets_time_to_arrive() -> None:
    ended = TaskView("succeeded", ended=at(-1), started=at(-9))
    assert look(view=ended, started_folder=NOW - 9) == ("running", False)
    assert look(view=TaskView("succeeded", ended=at(-GRACE_S - 1)), started_folder=NOW - 9) == ("succeeded", True)


def test_a_task_that_never_started_needs_no_account() -> None:
    assert look(view=TaskView("cancelled", ended=at(0))) == ("cancelled", True)
    assert look(JobView(True, "cancelled")) == ("cancelled", True)


def test_a_task_without_any_word_is_queued() -> None:
    assert look() is None
    assert look(JobView(True, "queued")) is None


def test_a_job_that_was_just_submitted_is_not_forgotten_yet() -> None:
    assert look(FORGOT, NOW - LAG_S + 1) is None
    assert look(FORGOT, NOW - LAG_S - 1) == ("unknown", False)


def test_without_anybody_to_ask_a_task_with_a_folder_runs() -> None:
    assert look(None, started_folder=NOW) == ("running", False)
    assert look(JobView(True, "unknown"), started_folder=NOW) == ("running", False)
    assert look(None) is None


def test_a_word_that_nobody_knows_breaks_nothing() -> None:
    assert look(view=TaskView("levitating", "LEVITATING")) == ("unknown", False)
    assert look(exit=left("levitating"), started_folder=NOW) == ("unknown", True)


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


def test_the_order_of_the_ends() -> None:
    order = ["failed", "out_of_memory", "timed_out", "node_failed", "preempted", "cancelled", "succeeded"]
    for number, state in enumerate(order):
        assert job_state(dict.fromkeys(order[number:], 1)) == state


def test_a_settled_task_has_its_derived_figures() -> None:
    job = PreparedJob("id", "n", "notebook", "/p", "u", "", resources=Resources(cpus=2, memory_mb=1000, gpus=4))
    account = left(
        "succeeded", started=at(-3601), ended=at(-1), elapsed_s=3600.0, cpu_s=3600.0, max_rss_mb=250.0, host="n1", exit_code=0
    )
    seen = Seen(3, NOW, account, view=TaskView("succeeded", "COMPLETED"))
    state = task_state(seen, RUNS, None)
    assert state is not None
    row = task_row(job, at(-3661), seen, state)
    assert (row["task"], row["wait_s"], row["elapsed_s"], row["cpu_efficiency"], row["memory_efficiency"]) == (
        3,
        60.0,
        3600.0,
        0.5,
        0.25,
    )
    assert (row["gpu_hours"], row["host"], row["exit_code"], row["final"], row["scheduler_state"]) == (
        4.0,
        "n1",
        0,
        1,
        "COMPLETED",
    )
    json.loads(row["notes"])


def test_a_running_task_has_no_end_and_no_figures_that_grow() -> None:
    job = PreparedJob("id", "n", "notebook", "/p", "u", "")
    seen = Seen(0, NOW, view=TaskView("running", "R", host="n1", started=at(-5)), started_folder=NOW)
    state = task_state(seen, RUNS, None)
    assert state is not None
    row = task_row(job, at(-6), seen, state)
    assert (row["state"], row["host"], row["wait_s"], row["elapsed_s"], row["ended"], row["final"]) == (
        "running",
        "n1",
        1.0,
        None,
        None,
        0,
    )
    assert row == task_row(job, at(-6), seen, state)


@pytest.mark.parametrize("text", ["", None, "yesterday", "2024-13-01T00:00:00Z"])
def test_a_time_that_is_none_is_none(text: str | None) -> None:
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


def test_an_account_of_an_earlier_attempt_is_not_the_end_of_a_task_that_was_started_again() -> None:
    account = left("cancelled", attempt=1)
    for word in ("queued", "running"):
        view = TaskView(word, "PENDING", restarts=1, as_of=NOW)
        assert look(exit=account, view=view, started_folder=NOW) == (word, False)
    assert look(exit=account, view=TaskView("queued", as_of=NOW), started_folder=NOW) == ("queued", False)
    again = left("succeeded", attempt=2)
    assert look(exit=again, view=TaskView("succeeded", restarts=1), started_folder=NOW) == ("succeeded", True)


def test_a_task_that_began_after_the_queue_was_read_is_running() -> None:
    old = TaskView("queued", "PENDING", as_of=NOW - 20)
    assert look(view=old, started_folder=NOW - 5) == ("running", False)
    assert look(view=old, started_folder=NOW - 25) == ("queued", False), "an earlier attempt's folder"


def test_a_scheduler_that_accounts_for_tasks_is_waited_for() -> None:
    account = left("succeeded")
    assert look(exit=account, view=None, started_folder=NOW, patience=ACCOUNTS) == ("succeeded", False)
    closed = TaskView("succeeded", "COMPLETED", facts=FIGURES, accounted=True)
    assert look(exit=account, view=closed, started_folder=NOW, patience=ACCOUNTS) == ("succeeded", True)
    old = left("succeeded", ended=at(-reconcile.FACTS_PATIENCE_S))
    assert look(exit=old, view=None, started_folder=NOW, patience=ACCOUNTS) == ("succeeded", True), "but not for ever"


def test_a_task_that_was_told_to_stop_is_cancelled_only_when_the_user_asked_or_the_scheduler_says_so() -> None:
    account = left("cancelled")
    assert look(exit=account, started_folder=NOW, patience=ACCOUNTS) == ("running", False)
    assert look(exit=account, started_folder=NOW, patience=ACCOUNTS, cancelled=True) == ("cancelled", False)
    late = left("cancelled", ended=at(-90))
    assert look(exit=late, started_folder=NOW, patience=ACCOUNTS) == ("cancelled", False)


@pytest.mark.parametrize("folder", [None, NOW - 40])
def test_an_account_that_a_network_filesystem_shows_late_is_waited_for(folder: float | None) -> None:
    view = TaskView("failed", "FAILED", exit_code=1, started=at(-50), ended=at(-30), facts=FIGURES, accounted=True)
    assert look(view=view, started_folder=folder, patience=ACCOUNTS) == ("running", False)
    view = TaskView("failed", "FAILED", exit_code=1, started=at(-99), ended=at(-61), facts=FIGURES, accounted=True)
    assert look(view=view, started_folder=folder, patience=ACCOUNTS) == ("failed", True)


def test_what_the_scheduler_accounted_wins_over_what_the_runner_measured() -> None:
    job = PreparedJob("j", "n", "script", "/p", "u", at(-100), resources=Resources(cpus=8, memory_mb=4000, gpus=1))
    account = left("succeeded", started=at(-30), elapsed_s=20.0, cpu_s=1.0, max_rss_mb=1.0)
    seen = Seen(
        0,
        NOW,
        account,
        started_folder=NOW,
        view=TaskView("succeeded", "COMPLETED", facts=FIGURES, accounted=True),
        patience=ACCOUNTS,
    )
    state = task_state(seen, RUNS, NOW - 100)
    assert state is not None
    row = task_row(job, at(-100), seen, state)
    assert (row["elapsed_s"], row["cpu_s"], row["max_rss_mb"], row["gpu_hours"]) == (40.0, 30.0, 250.0, 0.5)
    assert row["cpu_efficiency"] == pytest.approx(30 / (40 * 2))
    assert row["memory_efficiency"] == pytest.approx(0.25)
