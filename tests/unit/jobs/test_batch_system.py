"""A made-up batch system that implements the port alone passes through submitting, state and explaining."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from direct_scheduler import DirectScheduler

from lossi import jobs
from lossi.clusters import Cluster
from lossi.errors import InvalidInput, NotSupported
from lossi.jobs import schedulers
from lossi.jobs.explain import pending_reasons
from lossi.jobs.schedulers import Capabilities, TaskView
from lossi.projects import Project

Spec = Callable[..., Any]


def test_every_folder_is_a_batch_system_and_one_can_be_registered(direct: DirectScheduler) -> None:
    assert schedulers.names()[0] == "local"
    assert set(schedulers.names()) >= {"local", "slurm_cli", "slurm_rest", "slurm_pyslurm", "direct"}
    assert schedulers.get("direct") is direct
    assert [system.name for system in schedulers.systems("slurm_rest")] == ["slurm"]
    assert {system.name for system in schedulers.systems("forgotten")} >= {"local", "slurm", "direct"}


def test_all_schedulers_of_the_site_file_have_a_batch_system() -> None:
    names = set(schedulers.names())
    assert set(Cluster.model_fields["scheduler"].annotation.__args__) <= names  # type: ignore[union-attr]


def test_it_runs_jobs(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    job = jobs.submit(project, spec(command=["true"]))
    assert (job.scheduler, job.state) == ("direct", "queued")
    direct.run(job.id)
    assert jobs.get(project, job.id).state == "succeeded"


def test_its_reasons_for_waiting_are_explained(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    job = jobs.submit(project, spec())
    direct.say(job.id, 0, TaskView("queued", "WAITS", "NoSeat"))
    waiting = jobs.explain(project, job.id).waiting
    assert waiting is not None
    assert (waiting.word, waiting.sentence, waiting.suggestion) == (
        "NoSeat",
        "All seats are taken.",
        "Wait until somebody leaves.",
    )


def test_another_systems_reason_is_not_explained_by_its_words() -> None:
    assert "has a higher priority" not in pending_reasons.explain_pending("Priority", "direct").sentence
    assert pending_reasons.explain_pending("NoSeat", "slurm_cli").sentence == "The scheduler gives the reason 'NoSeat'."


@pytest.mark.parametrize(
    ("scheduler_state", "log", "kind"), [("EVICTED", "", "preemption"), ("GONE", "direct: its time is up", "time_limit")]
)
def test_what_it_ended_a_task_for_is_explained(
    project: Project, spec: Spec, direct: DirectScheduler, scheduler_state: str, log: str, kind: str
) -> None:
    job = jobs.submit(project, spec())
    (project.jobs / job.id / schedulers.LOG).write_text(log)
    direct.say(
        job.id, 0, TaskView("failed", scheduler_state, "", 9, started="2024-01-01T00:00:00Z", ended="2024-01-01T00:01:00Z")
    )
    assert jobs.explain_task(project, job.id, 0).kind == kind


def test_its_dependencies_are_in_its_own_form(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    first = jobs.submit(project, spec())
    with pytest.raises(NotSupported, match="'direct' cannot let a job wait"):
        jobs.preview(project, spec(after=[{"job": first.id}]))
    direct.capabilities = Capabilities(dependencies=True)
    preview = jobs.preview(project, spec(after=[{"job": first.id, "condition": "any"}]))
    assert preview.job.dependency == f"any=direct-{first.id}"


def test_a_scheduler_that_nobody_has_is_refused() -> None:
    with pytest.raises(InvalidInput, match="there is no scheduler 'slurm_cly'") as refused:
        schedulers.get("slurm_cly")
    assert "slurm_cli" in refused.value.hint
