"""Every client of Slurm 24.11 and 26.05 gives the same answers about real jobs."""

from __future__ import annotations

import dataclasses
import pwd
from collections.abc import Iterable
from pathlib import Path

import pytest
from version_cluster import Access, as_user

from lossi.contract.states import has_ended
from lossi.errors import Forbidden, InvalidInput, LossiError
from lossi.jobs.schedulers.slurm.client import SlurmClient
from lossi.jobs.schedulers.slurm.records import AccountingRow
from lossi.jobs.schedulers.slurm.request import SlurmRequest
from lossi.jobs.schedulers.slurm.states import state_of

USER = "lossi-tester1"


def requested(folder: Path, body: str, **asked: object) -> SlurmRequest:
    """Write a script as the user and return the request that runs it."""
    script = folder / "script.sh"

    def write() -> None:
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o700)

    as_user(USER, write)
    plain = SlurmRequest(name=f"lossi-{folder.name}", script=script, directory=folder, output=folder / "scheduler.log")
    return dataclasses.replace(plain, **{"memory_mb": 100, "time_limit_min": 5, "partition": "small", **asked})


def tasks_of(rows: Iterable[object], job: int) -> set[int]:
    return {task for row in rows if row.job_id == job for span in row.tasks or () for task in span}


def finals(client: SlurmClient, job: int, number: int) -> list[AccountingRow] | None:
    """Return the accounting of so many tasks once all of them have ended."""
    rows = client.accounting({job: None})
    ended = [row for row in rows if has_ended(state_of(row.state)) and row.ended]
    known = sum(1 if row.task is not None or not row.tasks else sum(map(len, row.tasks)) for row in ended)
    return rows if known == number else None


def test_a_job_is_seen_in_the_queue_and_accounted_for(access: Access, folder: Path) -> None:
    body = "while [ ! -e go ]; do sleep 0.1; done; exit 3"
    request = requested(folder, body, cpus=2)
    job = access.ask(lambda client: client.submit(request))

    def running(client: SlurmClient) -> object:
        return next((row for row in client.queue() if row.job_id == job and row.state == "RUNNING"), None)

    row = access.wait(running)
    assert (row.name, row.partition, row.account, row.cpus, row.nodes, row.tasks) == (request.name, "small", "proj1", 2, 1, None)
    assert row.time_limit_s == 300
    assert row.node_list in ("cpu01", "cpu02")
    assert row.exit_code is None
    assert row.started.endswith("Z")
    assert access.ask(lambda client: client.named(request.name, "2020-01-01T00:00:00Z")) == [(job, request.name)]
    as_user(USER, (folder / "go").touch)
    [ended] = access.wait(lambda client: finals(client, job, 1))
    assert (ended.state, ended.exit_code, ended.signal, ended.task) == ("FAILED", 3, None, None)
    assert (ended.cpus, ended.nodes, ended.partition, ended.account, ended.qos) == (2, 1, "small", "proj1", "normal")
    assert ended.memory_mb == 100
    assert ended.elapsed_s >= 0
    assert ended.time_limit_s == 300
    assert not [row for row in access.ask(lambda client: client.queue()) if row.job_id == job]
    late = [row for row in access.ask(lambda client: client.queue(ended=True)) if row.job_id == job]
    assert [(row.state, row.exit_code) for row in late] == [("FAILED", 3)]


def test_every_task_of_an_array_ends_as_itself(access: Access, folder: Path) -> None:
    request = requested(folder, "exit $SLURM_ARRAY_TASK_ID", array=range(6), throttle=2)
    job = access.ask(lambda client: client.submit(request))
    rows = access.wait(lambda client: finals(client, job, 6))
    assert {row.task: (row.state, row.exit_code) for row in rows} == {
        0: ("COMPLETED", 0),
        **{task: ("FAILED", task) for task in range(1, 6)},
    }
    assert tasks_of(access.ask(lambda client: client.queue(ended=True)), job) == set(range(6))
    only = access.ask(lambda client: client.accounting({job: [0, 4]}))
    assert {row.task for row in only} == {0, 4}


def test_tasks_of_an_array_that_wait_are_one_record(access: Access, folder: Path) -> None:
    request = requested(folder, "sleep 100", array=range(1500), throttle=1)
    job = access.ask(lambda client: client.submit(request))
    try:
        # Single tasks that are taken out leave a long expression, which slurmrestd cuts after 64 characters.
        gone = [11, 13] if access.scheduler == "slurm_rest" else list(range(11, 1400, 2))
        access.wait(lambda client: [row for row in client.queue() if row.job_id == job and row.state == "RUNNING"])
        access.ask(lambda client: client.cancel({job: gone}))

        def cancelled(client: SlurmClient) -> bool:
            return tasks_of(client.queue(), job) == set(range(1500)) - set(gone)

        access.wait(cancelled)
        rows = [row for row in access.ask(lambda client: client.queue()) if row.job_id == job]
        assert sorted(row.state for row in rows) == ["PENDING", "RUNNING"]
        waiting = next(row for row in rows if row.state == "PENDING")
        assert waiting.reason == "JobArrayTaskLimit"
        running = next(row for row in rows if row.state == "RUNNING")
        assert running.tasks == (range(1),)
    finally:
        access.ask(lambda client: client.cancel({job: None}))
    access.wait(lambda client: not [row for row in client.queue() if row.job_id == job])


def test_cancelled_tasks_say_who_cancelled_them(access: Access, folder: Path) -> None:
    request = requested(folder, "sleep 100", array=range(4), throttle=1)
    job = access.ask(lambda client: client.submit(request))
    access.wait(lambda client: [row for row in client.queue() if row.job_id == job and row.state == "RUNNING"])
    access.ask(lambda client: client.cancel({job: [0, 2]}))
    access.wait(lambda client: tasks_of(client.queue(), job) == {1, 3})
    access.ask(lambda client: client.cancel({job: None}))
    # Slurm keeps nothing of a task that was taken out of an array before it started.
    rows = access.wait(lambda client: finals(client, job, 3))
    assert ({row.task for row in rows} - {None}) | tasks_of(rows, job) == {0, 1, 3}
    assert {row.state for row in rows} == {"CANCELLED"}
    assert {row.cancelled_by for row in rows} == {pwd.getpwnam(USER).pw_uid}
    access.ask(lambda client: client.cancel({job: None}))  # has ended: no error
    access.ask(lambda client: client.cancel({job: [1, 3]}))


def test_gpus_are_asked_for_by_type_and_number(access: Access, folder: Path) -> None:
    request = requested(folder, "echo $CUDA_VISIBLE_DEVICES > devices; sleep 2", partition="gpu", gpus=2, gpu_type="a100")
    job = access.ask(lambda client: client.submit(request))
    [row] = [row for row in access.ask(lambda client: client.queue(ended=True)) if row.job_id == job]
    assert (row.gpus, row.gpu_type) == (2, "a100")
    [ended] = access.wait(lambda client: finals(client, job, 1))
    assert (ended.state, ended.gpus) == ("COMPLETED", 2)
    assert len((folder / "devices").read_text().strip().split(",")) == 2


def test_a_job_has_the_login_environment_and_what_was_asked_for(
    access: Access, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY_BASE", "do-not-tell")
    monkeypatch.setenv("SLURM_HINT", "nomultithread")
    request = requested(folder, "env > environment; pwd > place", environment={"LOSSI_JOB_ID": "01X"})
    job = access.ask(lambda client: client.submit(request))
    access.wait(lambda client: finals(client, job, 1))
    variables = dict(line.split("=", 1) for line in (folder / "environment").read_text().splitlines() if "=" in line)
    assert variables["LOSSI_JOB_ID"] == "01X"
    assert variables["HOME"] == f"/home/{USER}"
    assert "SECRET_KEY_BASE" not in variables
    assert "SLURM_HINT" not in variables
    assert (folder / "place").read_text().strip() == str(folder)


def test_output_goes_where_it_was_asked_for_whatever_the_path(access: Access, folder: Path) -> None:
    strange = folder / "50% of %j ünd so"
    as_user(USER, strange.mkdir)
    request = dataclasses.replace(requested(strange, "echo said"), name=f"lossi-{folder.name}")
    job = access.ask(lambda client: client.submit(request))
    access.wait(lambda client: finals(client, job, 1))
    assert request.output.read_text() == "said\n"


def test_a_job_that_waits_for_another(access: Access, folder: Path) -> None:
    first = access.ask(lambda client: client.submit(requested(folder, "sleep 100")))
    second = access.ask(lambda client: client.submit(requested(folder, "true", dependency=f"afterok:{first}")))
    [row] = [row for row in access.ask(lambda client: client.queue()) if row.job_id == second]
    assert (row.state, row.reason) == ("PENDING", "Dependency")
    access.ask(lambda client: client.cancel({first: None}))
    access.wait(lambda client: second not in {row.job_id for row in client.queue()})  # can never run: not left waiting


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"partition": "nowhere"}, "partition"),
        ({"account": "nobody"}, "account"),
        ({"partition": "tiny", "time_limit_min": 600}, "time limit"),
        ({"partition": "gpu", "gpus": 1, "gpu_type": "h100"}, ""),
        ({"cpus": 1000}, ""),
    ],
)
def test_what_slurm_refuses_is_said_in_its_words(access: Access, folder: Path, asked: dict[str, object], word: str) -> None:
    with pytest.raises((InvalidInput, Forbidden)) as caught:
        access.ask(lambda client: client.submit(requested(folder, "true", **asked)))
    assert word in caught.value.why.lower()


def test_another_users_job_is_neither_seen_nor_cancelled(access: Access, folder: Path) -> None:
    job = access.ask(lambda client: client.submit(requested(folder, "sleep 100")))
    other = "lossi-tester2"
    assert not access.ask(lambda client: client.queue(ended=True), other)
    assert not access.ask(lambda client: client.accounting({job: None}), other)
    assert not access.ask(lambda client: client.named("lossi-", "2020-01-01T00:00:00Z"), other)
    with pytest.raises(LossiError):
        access.ask(lambda client: client.cancel({job: None}), other)
    assert job in {row.job_id for row in access.ask(lambda client: client.queue())}
    access.ask(lambda client: client.cancel({job: None}))


def test_partitions_and_their_limits(access: Access) -> None:
    partitions = {row.name: row for row in access.ask(lambda client: client.partitions())}
    assert {"small", "gpu", "tiny", "low", "high"} <= set(partitions)
    if access.scheduler != "slurm_rest":  # v0.0.42 does not say which is the default
        assert [name for name, row in partitions.items() if row.default] == ["small"]
    tiny = partitions["tiny"]
    assert (tiny.max_time_s, tiny.default_time_s, tiny.max_nodes) == (300, 300, 1)
    assert (tiny.allowed_accounts, set(tiny.allowed_qos)) == (("proj1",), {"normal", "short"})
    small = partitions["small"]
    assert (small.max_time_s, small.max_nodes, small.total_nodes, small.state) == (86400, None, 2, "UP")
    assert small.default_memory_per_cpu_mb == 1000
    assert small.allowed_accounts == small.denied_accounts == small.allowed_groups == ()


def test_nodes_by_kind(access: Access) -> None:
    groups = access.ask(lambda client: client.nodes())
    gpu = [group for group in groups if group.partition == "gpu"]
    assert sum(group.nodes for group in gpu) == 2
    assert {(group.cpus, group.memory_mb, tuple(group.gpus.items())) for group in gpu} == {(16, 64000, (("a100", 4),))}
    assert {"gpu", "a100"} <= set(gpu[0].features)


def test_accounts_qualities_and_configuration(access: Access) -> None:
    associations = {association.account: association for association in access.ask(lambda client: client.associations())}
    assert set(associations) == {"proj1", "proj2", "capped"}
    assert [name for name, association in associations.items() if association.is_default] == ["proj1"]
    assert {"normal", "short", "few"} <= set(associations["proj1"].qos)
    assert {"normal", "short", "few", "closed"} <= {qos.name for qos in access.ask(lambda client: client.qos())}
    configuration = access.ask(lambda client: client.configuration())
    assert configuration.version.startswith(access.cluster.release)
    assert configuration.cluster == "ci"
    assert configuration.accounting
    assert configuration.requeue
    if access.scheduler != "slurm_rest":  # slurmrestd does not show the configuration
        assert (configuration.max_array_size, configuration.min_job_age_s, configuration.gpus) == (20001, 600, True)
        assert "limits" in configuration.enforced
