"""Jobs explained from their folders, and resubmitted with higher limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from direct_scheduler import DirectScheduler

from lossi import jobs
from lossi.contract import records
from lossi.contract.records import PreparedJob, Progress, TaskError
from lossi.errors import Conflict, InvalidInput, NotFound
from lossi.jobs.explain import explanations
from lossi.jobs.schedulers import TaskView
from lossi.projects import Project

Spec = Callable[..., Any]
Ends = Callable[..., None]


def folder(project: Project, job: Any, task: int) -> Path:
    place = project.jobs / job.id / records.TASK_FOLDER / str(task)
    place.mkdir(parents=True, exist_ok=True)
    return place


def asked(project: Project, job: Any) -> records.Resources:
    return records.load(PreparedJob, project.jobs / job.id / records.SPEC).resources


@pytest.fixture
def swept(project: Project, spec: Spec, ends: Ends) -> Any:
    """A sweep of eight: three out of memory, two over time, one with an error, one killed with a word in its log, one well."""
    job = jobs.submit(
        project, spec(sweep={"grid": {"depth": list(range(8))}}, resources={"memory": "1G", "time": "1h"}, parameters={"lr": 0.5})
    )
    for task in (0, 1, 2):
        ends(job.id, task, "out_of_memory", max_rss_mb=1000.0 + 1000 * task)
    for task in (3, 4):
        ends(job.id, task, "timed_out")
    ends(job.id, 5, "failed", error=TaskError("ValueError", "no labels", 2))
    ends(job.id, 6, "failed", exit_code=137)
    (folder(project, job, 6) / records.LOG).write_text("loading\n\x1b[31mKilled\n")
    progress = Progress(4, cell=6, cells=9, first_line="fit()", elapsed_s=3600.0, estimate_s=3600.0)
    (folder(project, job, 4) / records.PROGRESS).write_bytes(records.dump(progress))
    ends(job.id, 7)
    return jobs.get(project, job.id)


def test_a_job_is_explained_by_causes(project: Project, swept: Any) -> None:
    explanation = jobs.explain(project, swept.id[-8:])
    assert explanation.sentence == "4 of 8 tasks: memory; 2: time limit; 1: Python error."
    assert [(group.kind, group.count, group.tasks) for group in explanation.groups] == [
        ("memory", 4, [0, 1, 2, 6]),
        ("time_limit", 2, [3, 4]),
        ("python_error", 1, [5]),
    ]
    assert explanation.groups[2].example.evidence.exception == "ValueError"
    assert explanation.waiting is None


def test_a_task_is_explained_with_its_last_cell_and_lines(project: Project, swept: Any) -> None:
    late = jobs.explain_task(project, swept.id, 4)
    assert "cell 6 of 9 (fit())" in late.sentence and late.evidence.cell == 6
    assert late.changes == {"resources": {"time": "02:30:00"}}
    killed = jobs.explain_task(project, swept.id, 6)
    assert (killed.kind, killed.evidence.lines) == ("memory", ["loading", "Killed"])
    assert jobs.explain_task(project, swept.id, 7).kind == "none"
    with pytest.raises(NotFound):
        jobs.explain_task(project, swept.id, 8)


def test_a_job_with_one_task_has_the_sentence_of_its_task(project: Project, spec: Spec, ends: Ends) -> None:
    job = jobs.submit(project, spec())
    assert jobs.explain(project, job.id).sentence == "Waits for a slot."
    ends(job.id, 0, "failed", exit_code=1, error=TaskError("ModuleNotFoundError", "No module named 'torch'", 1))
    explanation = jobs.explain(project, job.id)
    assert (
        explanation.sentence
        == "A package is missing from the environment, in cell 1: ModuleNotFoundError: No module named 'torch'."
    )
    assert explanation.waiting is None


def test_the_log_of_the_scheduler_counts(project: Project, spec: Spec, ends: Ends) -> None:
    job = jobs.submit(project, spec())
    (project.jobs / job.id / "scheduler.log").write_text("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=5.batch\n")
    ends(job.id, 0, "failed", signal=9, written_by="script")
    assert jobs.explain_task(project, job.id, 0).kind == "memory"


def test_waiting_tasks_are_explained(project: Project, spec: Spec, ends: Ends, direct: DirectScheduler) -> None:
    job = jobs.submit(project, spec(sweep={"grid": {"depth": [1, 2, 3]}}))
    ends(job.id, 0, "failed", error=TaskError("ValueError", "no"))
    direct.say(job.id, 1, TaskView("queued", "PENDING", "NoSeat"))
    explanation = jobs.explain(project, job.id)
    assert explanation.groups[0].count == 1
    assert explanation.waiting is not None and explanation.waiting.tasks == 2
    assert explanation.sentence == "1 of 3 tasks: Python error. 2 of 3 tasks wait: All seats are taken."
    task = jobs.explain_task(project, job.id, 1)
    assert task.waiting is not None and task.waiting.word == "NoSeat"


def test_tasks_held_back_by_their_own_job_say_so(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    limited = jobs.submit(project, spec(sweep={"grid": {"depth": [1, 2, 3]}}, max_parallel=1))
    free = jobs.submit(project, spec(sweep={"grid": {"depth": [1, 2, 3]}}))
    for job in (limited, free):
        direct.say(job.id, 0, TaskView("running", "RUNNING"))
    assert "as the job itself allows" in jobs.explain(project, limited.id).sentence
    assert "Its turn has not come" in jobs.explain_task(project, free.id, 2).sentence


def test_a_whole_cancelled_job_without_any_start_is_explained(project: Project, spec: Spec) -> None:
    job = jobs.submit(project, spec(sweep={"grid": {"depth": [1, 2, 3]}}))
    jobs.cancel(project, job.id)
    explanation = jobs.explain(project, job.id)
    assert [(group.kind, group.count) for group in explanation.groups] == [("cancelled", 3)]


def test_a_job_without_directory_is_still_explained(project: Project, swept: Any) -> None:
    import shutil

    shutil.rmtree(project.jobs / swept.id)
    assert jobs.explain(project, swept.id).groups[0].kind == "memory"
    assert jobs.advise(project, swept.id).succeeded == 1


def test_only_a_few_logs_are_read(project: Project, spec: Spec, ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanations, "MOST_LOGS", 2)
    job = jobs.submit(project, spec(sweep={"grid": {"depth": list(range(5))}}))
    for task in range(5):
        ends(job.id, task, "failed", exit_code=1)
        (folder(project, job, task) / records.LOG).write_text("No space left on device\n")
    assert {group.kind: group.count for group in jobs.explain(project, job.id).groups} == {"exit_code": 3, "disk_full": 2}


def test_advice_comes_from_the_index(project: Project, spec: Spec, ends: Ends) -> None:
    job = jobs.submit(project, spec(sweep={"grid": {"depth": [1, 2]}}, resources={"memory": "64G", "time": "1h"}))
    ends(job.id, 0, max_rss_mb=5222.0)
    advice = jobs.advise(project, job.id)
    assert advice.changes["resources"]["memory"] == "8G"
    assert (advice.ended, advice.succeeded) == (1, 1)


# -- more of it ----------------------------------------------------------------------------------------------------------


def test_tasks_that_ran_out_of_memory_get_more_of_it(project: Project, swept: Any) -> None:
    again = jobs.resubmit(project, swept.id, more=["memory"])
    assert again.tasks == 4
    assert (asked(project, again).memory_mb, asked(project, again).time_limit_s) == (6144, 3600), "by the one that used most"
    assert again.resubmitted_from == swept.id


def test_tasks_get_more_of_both(project: Project, swept: Any) -> None:
    again = jobs.resubmit(project, swept.id, more=["time", "memory", "time"])
    assert again.tasks == 6
    assert (asked(project, again).memory_mb, asked(project, again).time_limit_s) == (6144, 9000)


def test_chosen_tasks_and_all_failed_ones_can_have_more(project: Project, swept: Any) -> None:
    all_failed = jobs.resubmit(project, swept.id, tasks="failed", more=["memory"])
    assert (all_failed.tasks, asked(project, all_failed).memory_mb) == (7, 6144)
    again = jobs.resubmit(project, swept.id, tasks=[5], more=["memory"])
    assert (again.tasks, asked(project, again).memory_mb) == (1, 2048), "nothing is known of it: twice as much"
    other = jobs.resubmit(project, swept.id, tasks=[0], more=["memory"], changes={"resources": {"cpus": 3}})
    assert (asked(project, other).memory_mb, asked(project, other).cpus) == (2048, 3)


def test_more_of_what_no_task_ran_out_of_is_refused(project: Project, spec: Spec, ends: Ends, swept: Any) -> None:
    job = jobs.submit(project, spec())
    ends(job.id, 0, "failed", error=TaskError("ValueError", "no"))
    with pytest.raises(Conflict, match="ran out of memory"):
        jobs.resubmit(project, job.id, more=["memory"])
    with pytest.raises(InvalidInput, match="nothing to double"):
        jobs.resubmit(project, job.id, tasks=[0], more=["memory"])
    with pytest.raises(InvalidInput, match="exclude each other"):
        jobs.resubmit(project, swept.id, more=["memory"], changes={"resources": {"memory": "1G"}})


# -- the command ---------------------------------------------------------------------------------------------------------


def said(capsys: pytest.CaptureFixture[str], project: Project, *arguments: str) -> str:
    """Return what ``lossi`` prints."""
    from lossi.cli import main

    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--project", str(project.root)])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_command_says_why_and_what_next(project: Project, swept: Any, capsys: pytest.CaptureFixture[str]) -> None:
    whole = said(capsys, project, "jobs", "why", "last")
    assert whole.startswith("4 of 8 tasks: memory; 2: time limit; 1: Python error.\n")
    assert f"lossi resubmit {swept.id} --more memory" in whole and f"lossi resubmit {swept.id} --more time" in whole
    output = said(capsys, project, "jobs", "why", f"{swept.id}.6")
    assert "ran out of memory" in output and "    Killed\n" in output and "\x1b" not in output
    assert "4 of 8 tasks: memory" in said(capsys, project, "jobs", "show", "last")
    assert json.loads(said(capsys, project, "jobs", "why", "last", "--json"))["groups"][0]["count"] == 4


def test_the_command_says_what_is_requested_now(project: Project, swept: Any, capsys: pytest.CaptureFixture[str]) -> None:
    again = said(capsys, project, "resubmit", swept.id, "--more", "memory", "--more", "time", "--detach")
    assert "with 6 GiB of memory instead of 1 GiB and 2 h 30 min of time instead of 1 h" in again


def test_the_command_compares_request_and_use(project: Project, swept: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert "ran out of memory: request 6G" in said(capsys, project, "jobs", "advice", "last")
    assert "None of your tasks has started" in said(capsys, project, "jobs", "waits")
