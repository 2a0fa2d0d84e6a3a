"""Cancel jobs, and resubmit them with and without changes."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from direct_scheduler import DirectScheduler
from job_notebooks import notebook

from lossi import jobs
from lossi.contract import records
from lossi.contract.records import PreparedJob
from lossi.errors import Conflict, InvalidInput, NotFound, Unavailable
from lossi.jobs.submit import prepare
from lossi.projects import Project

Spec = Callable[..., Any]
Ends = Callable[..., None]


def rows(project: Project, job: Any) -> list[dict[str, Any]]:
    return list(prepare.read_rows(project.jobs / job.id))


def prepared(project: Project, job: Any) -> PreparedJob:
    return records.load(PreparedJob, project.jobs / job.id / records.SPEC)


@pytest.fixture
def swept(project: Project, spec: Spec, ends: Ends) -> Any:
    """A sweep of four, two of which failed."""
    job = jobs.submit(
        project,
        spec(
            sweep={"grid": {"depth": [1, 2], "lr": [0.1, 0.2]}},
            parameters={"name": "n"},
            resources={"cpus": 2, "memory": "1G"},
            name="s",
        ),
    )
    for task, state in enumerate(("succeeded", "failed", "succeeded", "timed_out")):
        ends(job.id, task, state)
    return jobs.get(project, job.id)


def test_a_whole_job_is_cancelled(project: Project, spec: Spec, ends: Ends) -> None:
    job = jobs.submit(project, spec(sweep={"grid": {"depth": [1, 2, 3]}}))
    ends(job.id, 0)
    after = jobs.cancel(project, job.id[-8:])
    assert (after.state, after.counts) == ("cancelled", {"cancelled": 2, "succeeded": 1})
    assert jobs.task(project, job.id, 1).reason == "cancelled by you"
    assert jobs.cancel(project, job.id) == after, "once more changes nothing"


def test_one_task_is_cancelled_alone(project: Project, spec: Spec) -> None:
    job = jobs.submit(project, spec(sweep={"grid": {"depth": [1, 2, 3]}}))
    after = jobs.cancel(project, job.id, [1, 1])
    assert (after.state, after.counts) == ("queued", {"cancelled": 1, "queued": 2})
    with pytest.raises(NotFound, match="has no task 3"):
        jobs.cancel(project, job.id, [3])
    with pytest.raises(NotFound):
        jobs.cancel(project, "zzzzzz")


def test_a_scheduler_that_does_not_answer_cannot_cancel(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    job = jobs.submit(project, spec())
    direct.away = True
    with pytest.raises(Unavailable):
        jobs.cancel(project, job.id)


def test_only_failed_tasks_are_resubmitted(project: Project, swept: Any) -> None:
    again = jobs.resubmit(project, swept.id, tasks="failed")
    assert rows(project, again) == [{"name": "n", "depth": 1, "lr": 0.2}, {"name": "n", "depth": 2, "lr": 0.2}]
    definition = prepared(project, again)
    assert (definition.resubmitted_from, definition.resources.cpus, definition.resources.memory_mb, definition.name) == (
        swept.id,
        2,
        1024,
        "s",
    )
    assert definition.swept == ["depth", "lr"]
    assert again.id != swept.id


def test_chosen_tasks_are_resubmitted(project: Project, swept: Any) -> None:
    assert rows(project, jobs.resubmit(project, swept.id, tasks=[3, 0, 3])) == [
        {"name": "n", "depth": 1, "lr": 0.1},
        {"name": "n", "depth": 2, "lr": 0.2},
    ]
    with pytest.raises(NotFound, match="has no task 9"):
        jobs.resubmit(project, swept.id, tasks=[9])
    with pytest.raises(InvalidInput, match="`tasks` is empty"):
        jobs.resubmit(project, swept.id, tasks=[])


def test_all_of_a_sweep_is_the_same_sweep(project: Project, swept: Any) -> None:
    again = jobs.resubmit(project, swept.id)
    assert rows(project, again) == rows(project, swept)
    assert prepared(project, again).sweep == prepared(project, swept).sweep


def test_a_sweep_from_a_table_keeps_its_values(project: Project, spec: Spec) -> None:
    job = jobs.submit(project, spec(sweep={"csv": "depth,name\n1,007\n2,x\n"}, parameters={"lr": 1}))
    assert rows(project, jobs.resubmit(project, job.id)) == rows(project, job)
    assert rows(project, jobs.resubmit(project, job.id, tasks=[0])) == [{"lr": 1.0, "depth": 1, "name": "007"}]


def test_a_list_with_gaps_keeps_its_fixed_values(project: Project, spec: Spec) -> None:
    job = jobs.submit(project, spec(sweep={"list": [{"depth": 1}, {"lr": 0.5}]}, parameters={"depth": 9}))
    assert rows(project, job) == [{"depth": 1}, {"depth": 9, "lr": 0.5}]
    assert rows(project, jobs.resubmit(project, job.id)) == rows(project, job)
    assert rows(project, jobs.resubmit(project, job.id, tasks=[1])) == [{"depth": 9, "lr": 0.5}]


def test_parameters_and_resources_are_merged_member_by_member(project: Project, swept: Any) -> None:
    changes = {"parameters": {"lr": 0.7, "name": "new"}, "resources": {"memory": "2G"}, "name": "bigger", "max_parallel": 1}
    again = jobs.resubmit(project, swept.id, tasks="failed", changes=changes)
    assert rows(project, again) == [{"lr": 0.7, "name": "new", "depth": 1}, {"lr": 0.7, "name": "new", "depth": 2}]
    definition = prepared(project, again)
    assert (
        definition.resources.cpus,
        definition.resources.memory_mb,
        definition.name,
        definition.max_parallel,
        definition.swept,
    ) == (
        2,
        2048,
        "bigger",
        1,
        ["depth"],
    )


def test_all_swept_parameters_can_be_fixed_and_another_sweep_given(project: Project, swept: Any) -> None:
    fixed = jobs.resubmit(project, swept.id, tasks=[0], changes={"parameters": {"lr": 1.0, "depth": 5}})
    assert rows(project, fixed) == [{"name": "n", "lr": 1.0, "depth": 5}]
    other = jobs.resubmit(project, swept.id, changes={"sweep": {"grid": {"depth": [7, 8]}}})
    assert rows(project, other) == [{"name": "n", "depth": 7}, {"name": "n", "depth": 8}]


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"enviroment": "x"}, "a job has no 'enviroment'"), ({"parameters": 3}, "must be an object"), ({"parameters": {"deepth": 1}}, "deepth"),
     ({"resources": {"memory": "lots"}}, "write 8G"), ({"command": ["x"]}, "one of notebook, script and command")],
)  # fmt: skip
def test_invalid_changes_are_refused(project: Project, swept: Any, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        jobs.resubmit(project, swept.id, changes=changes)
    assert caught.value.hint
    assert len(jobs.list_jobs(project).items) == 1


def test_nothing_failed_is_a_conflict(project: Project, spec: Spec, ends: Ends) -> None:
    job = jobs.submit(project, spec())
    ends(job.id, 0)
    with pytest.raises(Conflict, match="has failed"):
        jobs.resubmit(project, job.id, tasks="failed")


def test_a_single_job_is_resubmitted_with_its_parameters(project: Project, spec: Spec, ends: Ends) -> None:
    job = jobs.submit(project, spec(parameters={"depth": 4}))
    ends(job.id, 0, "failed")
    again = jobs.resubmit(project, job.id, tasks="failed", changes={"parameters": {"lr": 1}}, idempotency_key="once")
    assert rows(project, again) == [{"depth": 4, "lr": 1.0}]
    assert (
        jobs.resubmit(project, job.id, tasks="failed", changes={"parameters": {"lr": 1}}, idempotency_key="once").id == again.id
    )


def test_the_code_is_the_present_one_or_that_of_the_first_submission(project: Project, spec: Spec) -> None:
    job = jobs.submit(project, spec(parameters={"depth": 4}))
    (project.root / "train.ipynb").write_text(notebook("print('changed')", parameters="depth = 1\nextra = 2"))

    def source(of: Any) -> str:
        with tarfile.open(project.jobs / of.id / records.CODE) as archive:
            stream = archive.extractfile("train.ipynb")
            assert stream is not None
            return stream.read().decode()

    now = jobs.resubmit(project, job.id)
    assert "changed" in source(now)
    (project.root / "train.ipynb").unlink()
    then = jobs.resubmit(project, job.id, same_code=True)
    assert source(then) == source(job)
    assert prepared(project, then).code.sha256 == prepared(project, job).code.sha256
    with pytest.raises(InvalidInput, match="extra"):
        jobs.resubmit(project, job.id, same_code=True, changes={"parameters": {"extra": 1}})
    with pytest.raises(NotFound, match=r"no file train.ipynb"):
        jobs.resubmit(project, job.id)


def test_a_job_whose_directory_is_damaged_is_refused_clearly(project: Project, swept: Any) -> None:
    (project.jobs / swept.id / records.TASKS).write_text("nonsense")
    with pytest.raises(NotFound, match="parameters of job"):
        jobs.resubmit(project, swept.id, tasks="failed")
    (project.jobs / swept.id / records.CODE).unlink()
    with pytest.raises(NotFound, match="code snapshot"):
        jobs.resubmit(project, swept.id, same_code=True)
