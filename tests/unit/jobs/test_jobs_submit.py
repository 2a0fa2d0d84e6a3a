"""Submitting: once per key, whichever process dies in between; and when the scheduler does not answer."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from direct_scheduler import DirectScheduler

from lossi import jobs
from lossi.contract import records
from lossi.contract.records import SubmissionRecord
from lossi.errors import Conflict, Forbidden, InvalidInput, Unavailable
from lossi.jobs.schedulers import TaskView
from lossi.jobs.state import job_directory, refresh
from lossi.jobs.submit import keys, preparer, submission
from lossi.projects import Project

Spec = Callable[..., Any]


def die(*_: Any) -> Any:
    os._exit(9)


DIE = {
    "before the directory is there": (Path, "rename"),
    "after preparing": (DirectScheduler, "submit"),
    "after submitting": (job_directory, "write_submission"),
}
"""Where a submitting process dies: what is called there, and does not return."""


def child(project: Project, spec: Any, *, key: str | None = None, dies: tuple[Any, str] | None = None) -> tuple[int, int]:
    """Submit in a process of its own; return its pid and a pipe with its answer."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if dies:
                setattr(*dies, die)
            os.write(writer, jobs.submit(project, spec, idempotency_key=key).id.encode())
            os._exit(0)
        except BaseException as error:
            os.write(writer, repr(error).encode()[:4000])
        finally:
            os._exit(1)
    os.close(writer)
    return pid, reader


def ended(process: tuple[int, int]) -> tuple[int, str]:
    """Return exit code and answer of a child."""
    pid, reader = process
    with os.fdopen(reader) as stream:
        answer = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), answer


def directories(project: Project) -> list[str]:
    return sorted(path.name for path in project.jobs.iterdir() if not path.name.startswith("."))


# -- one key, one job --------------------------------------------------------------------------------------------------


def test_the_same_key_with_the_same_request_is_the_same_job(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    first = jobs.submit(project, spec(parameters={"depth": 3}), idempotency_key="k 1")
    (project.root / "train.ipynb").unlink()  # a repeated request does not look at the notebook again
    again = jobs.submit(project, spec(parameters={"depth": 3}), idempotency_key="k 1")
    assert again.id == first.id
    assert again.definition is not None and again.definition.idempotency_key == "k 1"
    assert len(direct.submissions()) == len(directories(project)) == 1


def test_the_same_key_with_another_request_is_a_conflict(project: Project, spec: Spec) -> None:
    first = jobs.submit(project, spec(), idempotency_key="k")
    with pytest.raises(Conflict, match="used for a different request") as caught:
        jobs.submit(project, spec(parameters={"depth": 9}), idempotency_key="k")
    assert caught.value.details["job_id"] == first.id
    assert jobs.submit(project, spec(parameters={"depth": 9}), idempotency_key="k2").id != first.id


@pytest.mark.parametrize("key", ["", "x" * 257, "a\nb", "ü"])
def test_an_invalid_key_is_refused(project: Project, spec: Spec, key: str) -> None:
    with pytest.raises(InvalidInput, match="idempotency key"):
        jobs.submit(project, spec(), idempotency_key=key)


def test_a_refused_request_releases_its_key(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    with pytest.raises(InvalidInput):
        jobs.submit(project, spec(parameters={"deepth": 1}), idempotency_key="k")

    def refuse(*_: Any) -> Any:
        raise Forbidden("no jobs today", hint="come back tomorrow")

    direct.submit = refuse  # type: ignore[method-assign]
    with pytest.raises(Forbidden):
        jobs.submit(project, spec(parameters={"depth": 1}), idempotency_key="k")
    assert directories(project) == []
    del direct.submit  # type: ignore[attr-defined]
    assert jobs.submit(project, spec(parameters={"depth": 2}), idempotency_key="k").state == "queued"


def test_simultaneous_requests_with_one_key_are_one_job(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    jobs.submit(project, spec(parameters={"depth": 1}))  # the store is made once
    processes = [child(project, spec(), key="double click") for _ in range(6)]
    answers = [ended(process) for process in processes]
    assert {code for code, _ in answers} == {0}, answers
    assert len({answer for _, answer in answers}) == 1
    assert len(direct.submissions()) == len(directories(project)) == 2


@pytest.mark.parametrize("point", DIE)
def test_a_repeated_request_continues_where_a_dead_process_stopped(
    project: Project, spec: Spec, direct: DirectScheduler, point: str
) -> None:
    assert ended(child(project, spec(), key="k", dies=DIE[point])) == (9, "")
    before = [*directories(project), *direct.submissions()]
    job = jobs.submit(project, spec(), idempotency_key="k")
    assert job.state == "queued"
    assert directories(project) == direct.submissions() == [job.id]
    assert set(before) <= {job.id}
    assert (project.jobs / job.id / records.SUBMISSION).exists()
    assert jobs.submit(project, spec(), idempotency_key="k").id == job.id


@pytest.mark.parametrize("point", DIE)
def test_simultaneous_requests_take_over_from_a_dead_process_once(
    project: Project, spec: Spec, direct: DirectScheduler, point: str
) -> None:
    assert ended(child(project, spec(), key="k", dies=DIE[point])) == (9, "")
    answers = [ended(process) for process in [child(project, spec(), key="k") for _ in range(4)]]
    assert {code for code, _ in answers} == {0}, answers
    assert directories(project) == direct.submissions() == [answers[0][1]]
    assert len({answer for _, answer in answers}) == 1


def test_a_request_survives_several_dead_processes(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    for point in DIE.values():
        assert ended(child(project, spec(), key="k", dies=point)) == (9, "")
    assert jobs.submit(project, spec(), idempotency_key="k").state == "queued"
    assert len(directories(project)) == len(direct.submissions()) == 1


def test_waiting_for_another_process_ends_with_a_hint(project: Project, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "WAIT_S", 0.2)
    assert keys.claim(project, "k", "01aryz6s41tsv4rrffq69g5fav", spec().digest(), after=None)
    with pytest.raises(Unavailable, match="still being prepared") as caught:
        jobs.submit(project, spec(), idempotency_key="k")
    assert "same key" in caught.value.hint


def test_a_damaged_key_binds_nobody(project: Project, spec: Spec) -> None:
    jobs.submit(project, spec(), idempotency_key="k")
    [path] = (project.jobs / keys.FOLDER).iterdir()
    path.write_text("{")
    assert jobs.submit(project, spec(parameters={"depth": 5}), idempotency_key="k").state == "queued"


def test_simultaneous_submissions_without_keys_are_different_jobs(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(jobs.submit(project, spec()).id)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids) == direct.submissions() == directories(project)
    assert len(set(ids)) == 4


# -- between preparing and submitting ----------------------------------------------------------------------------------


def test_a_job_that_was_accepted_before_its_submitter_died_goes_on(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    assert ended(child(project, spec(), dies=DIE["after submitting"])) == (9, "")
    [job_id] = direct.submissions()
    assert not (project.jobs / job_id / records.SUBMISSION).exists()
    assert jobs.reconcile(project) == [job_id]
    assert jobs.get(project, job_id).state == "queued"
    assert records.load(SubmissionRecord, project.jobs / job_id / records.SUBMISSION).scheduler == "direct"
    assert not (project.jobs / job_id / preparer.FILE).exists()


def test_a_job_that_was_never_submitted_says_so_and_what_to_do(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    assert ended(child(project, spec(), dies=DIE["after preparing"])) == (9, "")
    [job_id] = directories(project)
    job = jobs.list_jobs(project).items[0]
    assert (job.id, job.state, job.reason, job.counts) == (job_id, "failed", refresh.NEVER_SUBMITTED, {"failed": 1})
    assert job.hint == f"submit it again: lossi resubmit {job_id}"
    assert jobs.tasks(project, job_id).items[0].state == "failed"
    again = jobs.resubmit(project, job_id, tasks="failed")
    assert (again.state, again.resubmitted_from) == ("queued", job_id)


def test_a_job_still_being_submitted_is_queued_and_cannot_be_cancelled(
    project: Project, spec: Spec, direct: DirectScheduler
) -> None:
    job = jobs.submit(project, spec())
    folder = project.jobs / job.id
    (folder / records.SUBMISSION).unlink()
    (folder / preparer.FILE).write_bytes(preparer.dump(preparer.myself()))
    direct.forget(job.id)
    shown = jobs.get(project, job.id)
    assert (shown.state, shown.reason) == ("queued", "it is being submitted")
    with pytest.raises(Conflict, match="still being submitted"):
        jobs.cancel(project, job.id)


def test_a_refusal_of_the_scheduler_leaves_nothing(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    direct.away = True
    with pytest.raises(Unavailable, match="does not answer") as caught:
        jobs.submit(project, spec())
    # Nobody can say whether it was accepted: the directory stays until the scheduler answers.
    [job_id] = directories(project)
    assert caught.value.details["job_id"] == job_id
    page = jobs.list_jobs(project)
    assert (page.items[0].state, page.stale[:24]) == ("queued", "the scheduler 'direct' d")
    direct.away = False
    assert jobs.get(project, job_id).reason == refresh.NEVER_SUBMITTED


def test_a_lost_answer_of_the_scheduler_is_looked_up(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    real = direct.submit

    def lost(*arguments: Any) -> Any:
        real(*arguments)
        raise Unavailable("the connection broke")

    direct.submit = lost  # type: ignore[method-assign]
    job = jobs.submit(project, spec())
    assert (job.state, job.scheduler_id) == ("queued", f"direct-{job.id}")


def test_a_job_that_the_scheduler_does_not_have_is_removed(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    def away(*_: Any) -> Any:
        raise Unavailable("the controller is down")

    direct.submit = away  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="the controller is down"):
        jobs.submit(project, spec())
    assert directories(project) == []


def test_an_interrupted_submission_is_settled_later(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    real = direct.submit

    def interrupted(*arguments: Any) -> Any:
        real(*arguments)
        raise KeyboardInterrupt

    direct.submit = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        jobs.submit(project, spec(), idempotency_key="k")
    del direct.submit  # type: ignore[attr-defined]
    [job_id] = directories(project)
    assert jobs.submit(project, spec(), idempotency_key="k").id == job_id
    assert direct.submissions() == [job_id]


def test_a_task_really_runs_through_script_and_scheduler(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    """The runner's place is taken by a few lines, because this room's concern ends at starting it."""
    job = jobs.submit(project, spec(sweep={"grid": {"depth": [1, 2]}}))
    runner = project.jobs / job.id / records.RUNNER
    runner.write_text(
        "import json, sys\n"
        "folder = sys.argv[sys.argv.index('--job') + 1]; n = sys.argv[sys.argv.index('--task') + 1]\n"
        "row = open(folder + '/tasks.jsonl').read().splitlines()[int(n)]\n"
        "print(row)\n"
        "exit = {'task': int(n), 'state': 'succeeded', 'exit_code': 0, 'elapsed_s': 2.0, 'cpu_s': 1.0, 'started': '2024-01-01T00:00:00Z', 'ended': '2024-01-01T00:00:02Z'}\n"
        "json.dump(exit, open(f'{folder}/tasks/{n}/exit.json', 'w'))\n"
    )
    direct.run(job.id)
    done = jobs.get(project, job.id)
    assert (done.state, done.counts, done.progress) == ("succeeded", {"succeeded": 2}, 1.0)
    assert json.loads(jobs.log(project, job.id, 1).data) == {"depth": 2}
    assert jobs.task(project, job.id, 0).cpu_efficiency == 0.5
    direct.say(job.id, 0, TaskView("running"))
    assert jobs.task(project, job.id, 0).state == "succeeded", "what is settled stays settled"
