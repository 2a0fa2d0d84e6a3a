"""The client of slurmrestd on the real cluster, by token over TCP and by the user's Unix socket."""

from __future__ import annotations

import pwd
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from real_cluster import OwnCluster

from lossi.clusters import RestSettings
from lossi.errors import InvalidInput, NotSupported, Unavailable
from lossi.jobs.schedulers.slurm import values
from lossi.jobs.schedulers.slurm.records import QueueRow
from lossi.jobs.schedulers.slurm.request import SlurmRequest
from lossi.jobs.schedulers.slurm.rest import RestClient

pytestmark = pytest.mark.root

LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.fixture
def user(own_slurm: OwnCluster) -> str:
    return own_slurm.users[0]


@pytest.fixture
def folder(own_slurm: OwnCluster, user: str) -> Path:
    return own_slurm.project(user)


def by_token(cluster: OwnCluster, user: str, folder: Path) -> RestSettings:
    token = folder / "token"
    token.write_text(cluster.scontrol("token", f"username={user}", "lifespan=3600"))
    token.chmod(0o600)
    cluster.give(token, user)
    return RestSettings(url=cluster.rest_up(user).url, token_file=token)


def by_socket(cluster: OwnCluster, user: str, folder: Path) -> RestSettings:
    return RestSettings(socket=cluster.rest_up(user).socket)


Settings = Callable[[OwnCluster, str, Path], RestSettings]


def client_of(cluster: OwnCluster, user: str, rest: RestSettings) -> RestClient:
    return RestClient(cluster.model(scheduler="slurm_rest", rest=rest), uid=pwd.getpwnam(user).pw_uid)


@pytest.fixture(params=[by_token, by_socket])
def client(request: pytest.FixtureRequest, own_slurm: OwnCluster, user: str, folder: Path) -> RestClient:
    rest: Settings = request.param
    return client_of(own_slurm, user, rest(own_slurm, user, folder))


@pytest.fixture
def token_client(own_slurm: OwnCluster, user: str, folder: Path) -> RestClient:
    return client_of(own_slurm, user, by_token(own_slurm, user, folder))


@pytest.fixture
def asked(folder: Path) -> Callable[..., SlurmRequest]:
    def make(body: str = "sleep 300", **changes: object) -> SlurmRequest:
        script = folder / f"script-{time.monotonic_ns()}.sh"
        script.write_text(f"#!/bin/sh\n{body}\n")
        name = f"lossi-{time.monotonic_ns()}"
        usual: dict[str, object] = {"name": name, "memory_mb": 100, "time_limit_min": 5}
        return SlurmRequest(
            script=script,
            directory=folder,
            output=folder / "scheduler.log",
            **{**usual, **changes},  # type: ignore[arg-type]
        )

    return make


def rows_of(client: RestClient, job_id: int, *, ended: bool = False) -> list[QueueRow]:
    return [row for row in client.queue(ended=ended) if row.job_id == job_id]


def test_array_from_submission_to_accounting(
    own_slurm: OwnCluster, user: str, client: RestClient, asked: Callable[..., SlurmRequest]
) -> None:
    body = '[ "$SLURM_ARRAY_TASK_ID" = 1 ] && exit 42; [ "$SLURM_ARRAY_TASK_ID" = 2 ] && kill -9 $$; exit 0'
    request = asked(body, array=range(4), throttle=2, partition="gpu", gpus=2, gpu_type="a100", cpus=2, signal_s=60)
    job_id = client.submit(request)
    assert client.named(request.name[:-1], LONG_AGO)[-1] == (job_id, request.name)
    own_slurm.wait(lambda: not rows_of(client, job_id), what="all tasks ended")

    ended = {row.tasks[0].start: row for row in rows_of(client, job_id, ended=True) if row.tasks}
    assert {task: (row.state, row.exit_code, row.signal) for task, row in ended.items()} == {
        0: ("COMPLETED", 0, None),
        1: ("FAILED", 42, None),
        2: ("FAILED", None, 9),
        3: ("COMPLETED", 0, None),
    }
    assert {(row.gpus, row.gpu_type, row.cpus) for row in ended.values()} == {(2, "a100", 2)}

    fields = ("JobID", "State", "ElapsedRaw", "AllocCPUS", "Partition", "Account", "NodeList", "AllocTRES")
    accounted = own_slurm.wait(
        lambda: (rows := own_slurm.sacct(user, job_id, *fields)) and len(rows) == 4 and "RUNNING" not in str(rows) and rows
    )
    rows = {f"{job_id}_{row.task}": row for row in client.accounting({job_id: None})}
    assert [rows[f"{job_id}_{task}"].exit_code for task in range(4)] == [0, 42, None, 0]
    assert [rows[f"{job_id}_{task}"].signal for task in range(4)] == [None, None, 9, None]
    for line in accounted:
        row = rows[line["JobID"]]
        assert row.state == line["State"]
        assert row.elapsed_s == int(line["ElapsedRaw"])
        assert row.cpus == int(line["AllocCPUS"])
        assert (row.partition, row.account, row.node_list) == (line["Partition"], line["Account"], line["NodeList"])
        tres = values.tres(line["AllocTRES"])
        assert (row.memory_mb, row.gpus, row.billing) == (tres["mem"], tres["gres/gpu"], tres["billing"])


def test_memory_and_processor_time_are_those_of_the_steps(
    own_slurm: OwnCluster, user: str, token_client: RestClient, asked: Callable[..., SlurmRequest]
) -> None:
    body = """SLURM_EXPORT_ENV=ALL srun --overlap --mem=0 sh -c 'x=$(head -c 30000000 /dev/zero | tr "\\0" x); sleep 5; echo ${#x}'"""
    job_id = token_client.submit(asked(body, memory_mb=400))
    own_slurm.wait(lambda: not rows_of(token_client, job_id))
    argv = ["sacct", "-nP", "--units=K", "-j", str(job_id), "-o", "JobID,TotalCPU,MaxRSS,NTasks"]

    def accounted() -> list[list[str]]:
        return [line.split("|") for line in own_slurm.run_as(user, argv).stdout.splitlines()]

    lines = own_slurm.wait(lambda: (printed := accounted()) and any(line[2].rstrip("K0") for line in printed[1:]) and printed)
    (row,) = token_client.accounting({job_id: None})
    greatest = max((values.memory_mb(rss) or 0) * int(tasks or 1) for _, _, rss, tasks in lines)
    assert row.max_rss_mb == pytest.approx(greatest) and greatest > 28
    assert row.cpu_s == pytest.approx(values.seconds(lines[0][1]), abs=0.0011)


def test_login_environment_is_loaded_and_nothing_else_comes(
    own_slurm: OwnCluster,
    client: RestClient,
    folder: Path,
    asked: Callable[..., SlurmRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET_KEY_BASE", "of the web process")
    job_id = client.submit(asked("env > seen; pwd >> seen", environment={"LOSSI_TEST_WORDS": "two words, ä"}))
    own_slurm.wait(lambda: not rows_of(client, job_id))
    output = (folder / "seen").read_text().splitlines()
    assert "LOSSI_TEST_WORDS=two words, ä" in output and f"HOME={own_slurm.home(client.user)}" in output
    assert output[-1] == str(folder) and any(line.startswith("PATH=/") for line in output)
    assert not any(word in line for line in output for word in ("SECRET_KEY_BASE", "SLURM_JWT"))


def test_waiting_tasks_are_cancelled_one_by_one_and_all(
    client: RestClient, own_slurm: OwnCluster, asked: Callable[..., SlurmRequest]
) -> None:
    before = client.submit(asked())
    job_id = client.submit(asked(array=range(10), throttle=1, dependency=f"afterok:{before}"))
    client.cancel({job_id: [3, 4, 7]})
    (row,) = rows_of(client, job_id)
    assert row.state == "PENDING" and row.tasks == (range(3), range(5, 7), range(8, 10))
    client.cancel({job_id: [3, 4]})
    client.cancel({job_id: None, before: None})
    own_slurm.wait(lambda: not rows_of(client, job_id) and not rows_of(client, before))
    client.cancel({job_id: None, before: None, 999_999_999: None})
    attempts = own_slurm.wait(lambda: client.accounting({before: None}))
    assert (attempts[-1].state, attempts[-1].cancelled_by) == ("CANCELLED", pwd.getpwnam(client.user).pw_uid)


def test_job_whose_parent_failed_does_not_wait_for_ever(
    token_client: RestClient, own_slurm: OwnCluster, asked: Callable[..., SlurmRequest]
) -> None:
    parent = token_client.submit(asked("sleep 1; exit 3"))
    child = token_client.submit(asked(dependency=f"afterok:{parent}"))
    own_slurm.wait(lambda: not rows_of(token_client, child))
    (row,) = rows_of(token_client, child, ended=True)
    assert row.state == "CANCELLED"


def test_jobs_of_another_user_are_neither_seen_nor_cancelled(
    own_slurm: OwnCluster, client: RestClient, folder: Path, asked: Callable[..., SlurmRequest]
) -> None:
    other = own_slurm.users[1]
    theirs = own_slurm.sbatch(other, "sleep 300", "--mem=50", "--job-name=lossi-theirs")
    assert rows_of(client, theirs, ended=True) == []
    own_slurm.wait(lambda: own_slurm.sacct(other, theirs, "JobID"))
    assert client.accounting({theirs: None}) == []
    assert client.named("lossi-theirs", LONG_AGO) == []
    with pytest.raises(Exception, match="denied"):
        client.cancel({theirs: None})
    assert own_slurm.job(other, theirs)["JobState"] in {"PENDING", "RUNNING"}
    own_slurm.run_as(other, ["scancel", str(theirs)])


def test_requeued_job_has_two_attempts(
    own_slurm: OwnCluster, token_client: RestClient, asked: Callable[..., SlurmRequest]
) -> None:
    job_id = token_client.submit(asked())
    own_slurm.wait(lambda: [row.state for row in rows_of(token_client, job_id)] == ["RUNNING"])
    own_slurm.scontrol("requeue", str(job_id))
    own_slurm.start_now(job_id)
    own_slurm.wait(lambda: {row.state for row in token_client.accounting({job_id: None})} == {"REQUEUED", "RUNNING"})
    (row,) = rows_of(token_client, job_id)
    assert row.restarts == 1
    token_client.cancel({job_id: None})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"partition": "nope"}, "Invalid partition name"),
        ({"account": "nope"}, "Invalid account"),
        ({"qos": "nope"}, "Invalid qos"),
        ({"partition": "gpu", "gpus": 1, "gpu_type": "h100"}, "Requested node configuration is not available"),
        ({"cpus": 999}, "More processors requested|Requested node configuration"),
        ({"time_limit_min": 999_999}, "Requested time limit is invalid"),
        ({"array": range(1_000_000)}, "Invalid job array specification"),
        ({"constraint": "nope"}, "Invalid feature|Requested node configuration"),
        ({"dependency": "afterok:abc"}, "Job dependency problem"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refusal_has_slurms_words(
    token_client: RestClient, asked: Callable[..., SlurmRequest], changes: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        token_client.submit(asked(**changes))


def test_what_the_cluster_offers(client: RestClient) -> None:
    configuration = client.configuration()
    assert configuration.version.count(".") == 2 and configuration.accounting and configuration.gpus
    partitions = {partition.name: partition for partition in client.partitions()}
    assert {"small", "gpu"} <= set(partitions) and partitions["gpu"].max_time_s
    assert any(group.partition == "gpu" and group.gpus == {"a100": 4} for group in client.nodes())
    assert {"proj1", "proj2"} <= {association.account for association in client.associations()}
    assert "normal" in {qos.name for qos in client.qos()}
    with pytest.raises(NotSupported):
        client.expected_start(SlurmRequest("x", Path("/x"), Path("/"), Path("/x")))


def test_slurmctld_that_is_down_is_said(
    own_slurm: OwnCluster, user: str, folder: Path, asked: Callable[..., SlurmRequest]
) -> None:
    rest = by_token(own_slurm, user, folder)
    client = RestClient(own_slurm.model(rest=rest, deadline_s=2), uid=pwd.getpwnam(user).pw_uid)
    job_id = client.submit(asked())
    own_slurm.kill_ctld()
    try:
        with pytest.raises(Unavailable):
            client.queue()
    finally:
        own_slurm.start_ctld()
    own_slurm.wait(lambda: _answers(client, job_id))
    client.cancel({job_id: None})


def _answers(client: RestClient, job_id: int) -> bool:
    try:
        return bool(rows_of(client, job_id))
    except Unavailable:
        return False
