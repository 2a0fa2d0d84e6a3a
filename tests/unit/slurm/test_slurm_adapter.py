"""What the adapter makes of answers that a real cluster does not give on demand: late, partial, contradicting, none at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from lossi.clusters import Cluster
from lossi.contract.records import PreparedJob, Resources
from lossi.errors import InvalidInput, Unavailable
from lossi.jobs import ulid
from lossi.jobs.schedulers.base import Handle, JobView, NotSubmitted
from lossi.jobs.schedulers.slurm.adapter import SlurmScheduler
from lossi.jobs.schedulers.slurm.cache import Cache
from lossi.jobs.schedulers.slurm.polling import LAG_S
from lossi.jobs.schedulers.slurm.records import AccountingRow, Configuration, QueueRow
from lossi.jobs.schedulers.slurm.request import SlurmRequest
from lossi.jobs.times import utc


class Scripted:
    """A client whose answers a test sets."""

    def __init__(self) -> None:
        self.rows: list[QueueRow] = []
        self.accounts: list[AccountingRow] = []
        self.config = Configuration("22.05.8", max_array_size=1001, accounting=True)
        self.names: list[tuple[int, str]] = []
        self.submitted: list[SlurmRequest] = []
        self.cancelled: list[Mapping[int, Sequence[int] | None]] = []
        self.asked: list[Mapping[int, Sequence[int] | None]] = []
        self.queues = 0
        self.refuse: Callable[[SlurmRequest], Exception | None] = lambda request: None
        self.away = False

    def arguments(self, request: SlurmRequest) -> list[str]:
        return ["sbatch", request.name]

    def submit(self, request: SlurmRequest) -> int:
        error = self.refuse(request)
        if error is not None:
            raise error
        self.submitted.append(request)
        return 100 + len(self.submitted)

    def queue(self, *, ended: bool = False) -> list[QueueRow]:
        self.queues += 1
        if self.away:
            raise Unavailable("slurmctld does not answer")
        return self.rows

    def accounting(self, jobs: Mapping[int, Sequence[int] | None], *, since: str | None = None) -> list[AccountingRow]:
        self.asked.append(jobs)
        return self.accounts

    def named(self, prefix: str, since: str) -> list[tuple[int, str]]:
        return [(number, name) for number, name in self.names if name.startswith(prefix)]

    def cancel(self, jobs: Mapping[int, Sequence[int] | None]) -> None:
        self.cancelled.append(jobs)

    def configuration(self) -> Configuration:
        return self.config

    def expected_start(self, request: SlurmRequest) -> tuple[str | None, str]:
        if self.away:
            raise Unavailable("slurmctld does not answer")
        return utc(60), "it would start then"


@pytest.fixture
def client() -> Scripted:
    return Scripted()


@pytest.fixture
def scheduler(client: Scripted, tmp_path: Path) -> SlurmScheduler:
    return SlurmScheduler(Cluster(name="test", poll_interval_s=0), client, Cache(tmp_path / "cache"))  # type: ignore[arg-type]


def job(tmp_path: Path, tasks: int = 1, **more: object) -> tuple[PreparedJob, Path]:
    prepared = PreparedJob(
        ulid.new(), "n", "command", str(tmp_path), "u", utc(time.time()), tasks=tasks, resources=Resources(), **more
    )  # type: ignore[arg-type]
    return prepared, tmp_path


def look(
    scheduler: SlurmScheduler, tasks: int = 3, *, ago: float = 100, text: str = "7", settled: set[int] | None = None
) -> JobView:
    handle = Handle("j", text, Path("/nowhere"), tasks, time.time() - ago, frozenset(settled or ()))
    return scheduler.poll([handle])["j"]


def test_a_sweep_beyond_the_largest_array_is_split_and_its_plain_name_comes_last(
    client: Scripted, scheduler: SlurmScheduler, tmp_path: Path
) -> None:
    prepared, directory = job(tmp_path, 2500, max_parallel=7)
    record = scheduler.submit(prepared, directory)
    assert [request.name for request in client.submitted] == [
        f"lossi-{prepared.id}+2002",
        f"lossi-{prepared.id}+1001",
        f"lossi-{prepared.id}",
    ]
    assert [request.throttle for request in reversed(client.submitted)] == [3, 2, 2]
    assert [request.array for request in client.submitted] == [range(498), range(1001), range(1001)]
    assert record.scheduler_id == "103+102@1001+101@2002"


def test_a_part_that_is_refused_takes_the_others_back(client: Scripted, scheduler: SlurmScheduler, tmp_path: Path) -> None:
    prepared, directory = job(tmp_path, 2500)
    client.refuse = lambda request: InvalidInput("too many") if len(client.submitted) == 2 else None
    with pytest.raises(InvalidInput):
        scheduler.submit(prepared, directory)
    assert client.cancelled == [{102: None, 101: None}]


def test_a_job_that_was_accepted_in_part_is_cancelled_and_not_found(client: Scripted, scheduler: SlurmScheduler) -> None:
    name = f"lossi-{ulid.new()}"
    client.names = [(5, f"{name}+1001")]
    assert scheduler.find(name.removeprefix("lossi-")) is None
    assert client.cancelled == [{5: None}]
    client.names = [(5, f"{name}+1001"), (6, name)]
    submission = scheduler.find(name.removeprefix("lossi-"))
    assert submission is not None
    assert submission.scheduler_id == "6+5@1001"


def test_a_queue_that_is_older_than_the_submission_says_nothing_against_it(client: Scripted, tmp_path: Path) -> None:
    scheduler = SlurmScheduler(Cluster(name="test", poll_interval_s=60), client, Cache(tmp_path / "cache"))  # type: ignore[arg-type]
    look(scheduler)
    view = look(scheduler, ago=-1)
    assert (view.known, view.state, list(view.waiting)) == (True, "queued", [range(3)])
    assert client.queues == 1


def test_a_pending_array_is_one_record_whatever_its_size(client: Scripted, scheduler: SlurmScheduler) -> None:
    client.rows = [
        QueueRow(7, "lossi-j", "PENDING", (range(2, 10_000),), reason="Priority"),
        QueueRow(7, "lossi-j", "RUNNING", (range(2),)),
    ]
    view = look(scheduler, 10_000)
    assert (view.state, view.reason, sorted(view.tasks), list(view.waiting)) == (
        "running",
        "Priority",
        [0, 1],
        [range(2, 10_000)],
    )
    assert client.asked == []


def test_only_tasks_that_left_the_queue_and_are_not_settled_are_asked_for(client: Scripted, scheduler: SlurmScheduler) -> None:
    client.rows = [QueueRow(7, "lossi-j", "RUNNING", (range(2, 3),))]
    client.accounts = [AccountingRow(7, "lossi-j", "TIMEOUT", 1, started=utc(1), ended=utc(61), elapsed_s=60, time_limit_s=60)]
    view = look(scheduler, settled={0})
    assert client.asked == [{7: [1]}]
    assert (view.tasks[1].state, view.tasks[1].reason) == ("timed_out", "it reached its time limit of 00:01:00")


def test_a_database_that_lags_behind_is_not_believed(client: Scripted, scheduler: SlurmScheduler) -> None:
    client.accounts = [AccountingRow(7, "lossi-j", "RUNNING", None, started=utc(1))]
    view = look(scheduler, 1)
    assert (view.known, view.state, dict(view.tasks)) == (True, "unknown", {})
    client.accounts = []
    assert look(scheduler, 1, ago=10 * LAG_S).known is False


def test_the_attempts_of_a_requeued_task_are_one_with_summed_hours(client: Scripted, scheduler: SlurmScheduler) -> None:
    common = {"gpus": 2, "cpus": 4, "billing": 8.0, "memory_mb": 100.0}
    client.accounts = [
        AccountingRow(
            7, "n", "PREEMPTED", submitted=utc(0), started=utc(10), ended=utc(1810), elapsed_s=1800, cpu_s=100, **common
        ),  # type: ignore[arg-type]
        AccountingRow(
            7, "n", "COMPLETED", submitted=utc(1810), started=utc(1900), ended=utc(3700), elapsed_s=1800, cpu_s=300, **common
        ),  # type: ignore[arg-type]
    ]
    task = look(scheduler, 1).tasks[0]
    assert (task.state, task.restarts) == ("succeeded", 1)
    assert [task.facts[name] for name in ("elapsed_s", "cpu_s", "gpu_hours", "billing")] == [3600, 400, 2.0, 8.0]


def test_a_kill_near_the_memory_limit_is_one_for_memory(client: Scripted, scheduler: SlurmScheduler) -> None:
    client.accounts = [AccountingRow(7, "n", "FAILED", signal=9, memory_mb=1000, max_rss_mb=990, started=utc(1), ended=utc(2))]
    assert look(scheduler, 1).tasks[0].state == "out_of_memory"
    client.accounts = [AccountingRow(7, "n", "FAILED", signal=9, memory_mb=1000, max_rss_mb=300, started=utc(1), ended=utc(2))]
    assert look(scheduler, 1).tasks[0].state == "failed"


def test_a_controller_that_is_away_shows_what_was_and_says_so(client: Scripted, scheduler: SlurmScheduler) -> None:
    client.rows = [QueueRow(7, "lossi-j", "RUNNING", (range(3),))]
    look(scheduler)
    client.away = True
    view = look(scheduler)
    assert set(view.tasks) == {0, 1, 2}
    assert "slurmctld does not answer" in view.stale
    assert "shown as it was at" in view.stale


def test_stopping_some_tasks_names_them_within_their_parts(client: Scripted, scheduler: SlurmScheduler, tmp_path: Path) -> None:
    handle = Handle("j", "5+9@1001", tmp_path, 2000)
    scheduler.cancel(handle, [3, 1001, 1500, 5000])
    assert client.cancelled == [{5: [3], 9: [0, 499]}]
    scheduler.cancel(handle, None)
    assert client.cancelled[1] == {5: None, 9: None}
    assert '"tasks":null' in (tmp_path / "cancel.json").read_text()


def test_without_a_database_the_queue_is_asked_for_the_ended_too(client: Scripted, scheduler: SlurmScheduler) -> None:
    client.config = Configuration("22.05.8", accounting=False)
    client.rows = [QueueRow(7, "lossi-j", "TIMEOUT", None, started=utc(1), ended=utc(99))]
    view = look(scheduler, 1)
    assert view.tasks[0].state == "timed_out"
    assert client.asked == []
    assert scheduler.capabilities.facts is False


def test_what_is_left_of_a_cancelled_array_are_the_tasks_without_a_record_of_their_own(
    client: Scripted, scheduler: SlurmScheduler
) -> None:
    client.accounts = [
        AccountingRow(7, "n", "CANCELLED", cancelled_by=0, ended=utc(5)),
        AccountingRow(7, "n", "COMPLETED", 0, started=utc(1), ended=utc(3), exit_code=0),
    ]
    view = look(scheduler)
    assert [view.tasks[number].state for number in range(3)] == ["succeeded", "cancelled", "cancelled"]
    assert view.tasks[0].restarts == 0
    assert view.tasks[1].reason == "cancelled by root before it started"
    client.config = Configuration("22.05.8", accounting=False)
    client.rows = [QueueRow(7, "n", "COMPLETED", (range(1),)), QueueRow(7, "n", "CANCELLED")]
    scheduler._cache.expire("configuration")
    view = look(scheduler)
    assert [view.tasks[number].state for number in range(3)] == ["succeeded", "cancelled", "cancelled"]


def test_when_slurm_cannot_be_asked_before_a_submission_nothing_was_submitted(
    client: Scripted, scheduler: SlurmScheduler, tmp_path: Path
) -> None:
    client.config = Configuration("22.05.8", min_job_age_s=300, accounting=True)
    client.away = True
    prepared, directory = job(tmp_path)
    with pytest.raises(NotSubmitted):
        scheduler.submit(prepared, directory)
    assert not client.submitted


def test_a_young_job_is_looked_for_in_the_queue_alone_so_that_the_database_may_be_down(
    client: Scripted, scheduler: SlurmScheduler
) -> None:
    client.config = Configuration("22.05.8", min_job_age_s=300, accounting=True)
    young, old = ulid.new(), "01arz3ndektsv4rrffq69g5fav"
    client.names = [(8, f"lossi-{young}"), (9, f"lossi-{old}")]
    assert scheduler.find(young) is None
    submission = scheduler.find(old)
    assert submission is not None and submission.scheduler_id == "9"


def test_without_a_database_what_the_queue_has_dropped_without_an_account_is_unknown(
    client: Scripted, scheduler: SlurmScheduler, tmp_path: Path
) -> None:
    client.config = Configuration("22.05.8", accounting=False)
    account = tmp_path / "tasks" / "1" / "exit.json"
    account.parent.mkdir(parents=True)
    account.write_text("{}")
    handle = Handle("j", "7", tmp_path, 3, time.time() - 100, frozenset({2}))
    view = scheduler.poll([handle])["j"]
    assert {number: task.state for number, task in view.tasks.items()} == {0: "unknown"}


def test_a_damaged_record_of_a_submission_disturbs_no_other_job(client: Scripted, scheduler: SlurmScheduler) -> None:
    client.rows = [QueueRow(7, "n", "RUNNING")]
    good = Handle("good", "7", Path("/nowhere"), 1, 0.0)
    assert set(scheduler.poll([Handle("bad", "seven", Path("/nowhere"), 1, 0.0), good])) == {"good"}


def test_a_waiting_task_that_somebody_took_out_of_the_queue_is_cancelled_though_slurm_keeps_nothing_of_it(
    client: Scripted, scheduler: SlurmScheduler
) -> None:
    client.rows = [QueueRow(7, "n", "PENDING", (range(1),)), QueueRow(7, "n", "RUNNING", (range(1, 2),))]
    assert set(look(scheduler, ago=5).tasks) == {1}, "the database may lag behind"
    view = look(scheduler, ago=10 * LAG_S)
    assert (view.tasks[2].state, view.tasks[2].facts) == ("cancelled", {})
    client.rows = []
    assert dict(look(scheduler, ago=10 * LAG_S).tasks) == {}, "a job of which nobody knows anything is another matter"


def test_what_was_cancelled_while_it_waited_never_started_though_the_database_gives_it_a_start(
    client: Scripted, scheduler: SlurmScheduler
) -> None:
    client.accounts = [AccountingRow(7, "n", "CANCELLED", cancelled_by=0, started=utc(5), ended=utc(5), elapsed_s=0)]
    assert look(scheduler).tasks[0].started is None
    client.accounts = [
        AccountingRow(7, "n", "CANCELLED", cancelled_by=0, node_list="n1", started=utc(5), ended=utc(9), elapsed_s=4)
    ]
    assert look(scheduler, 1).tasks[0].started == utc(5)


def test_a_door_that_knows_no_start_says_none(client: Scripted, scheduler: SlurmScheduler, tmp_path: Path) -> None:
    prepared, directory = job(tmp_path)
    assert scheduler.expected_start(prepared, directory) == utc(60)
    client.away = True
    assert scheduler.expected_start(prepared, directory) is None
