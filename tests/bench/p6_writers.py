"""P6: 1,000 writers with MLflow's own client, 50 at once, each on a store of its own that is published and ingested.

The peer is the usual alternative: the same writers on one shared MLflow SQLite store (fewer of them, because it is slow).
Then an ingest that is killed at 200 random points and repeated, against one that was not.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import shutil
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_LOGGING_LEVEL": "CRITICAL"}

POINTS = 100
AT_ONCE = 50
KILLED_TASKS = 40
PEER_LIMIT_S = 75.0
LEDGER = ("task_runs", "ingested_jobs", "ingested_snapshots", "ingested_runs", "ingested_values", "refused_snapshots")


def value(writer: int, step: int) -> float:
    """The point that a writer logs: told from every other writer's."""
    return writer + step / 1000


def fork(work: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException as error:
        print(f"a writer failed: {type(error).__name__}: {' '.join(str(error).split())[:160]}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def all_writers(count: int, work: Callable[[int], object], limit_s: float = 3600.0) -> tuple[float, int]:
    """Run writers, 50 at once; returns (seconds, how many failed or were stopped at the limit)."""
    begun = time.monotonic()
    running: set[int] = set()
    failed = 0
    waiting = list(range(count))
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            number = waiting.pop(0)
            running.add(fork(lambda number=number: work(number)))  # type: ignore[misc]
        child, status = os.waitpid(-1, os.WNOHANG)
        if child in running:
            running.discard(child)
            failed += status != 0
        elif child == 0:
            time.sleep(0.005)
        if time.monotonic() - begun > limit_s:
            for child in running:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            return time.monotonic() - begun, failed + len(waiting) + len(running)
    return time.monotonic() - begun, failed


def log(uri: str, writer: int, between: Callable[[int], object] = lambda step: None) -> str:
    """What a notebook does: one run, point by point."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    run = client.create_run("0", run_name=f"writer {writer}", tags={"writer": str(writer)}).info.run_id
    for step in range(POINTS):
        client.log_metric(run, "loss", value(writer, step), step=step)
        between(step)
    client.set_terminated(run)
    return run


@dataclass
class Field:
    """A project with one job, the node's disk, and second names of the published files."""

    root: Path
    writers: int

    def __post_init__(self) -> None:
        from lossi.contract import records
        from lossi.projects import Project, stores

        self.project = Project(self.root / "project")
        self.project.root.mkdir(parents=True)
        self.kept, self.node = self.root / "kept", self.root / "node"
        self.kept.mkdir()
        empty = stores.template([sys.executable], "bench", {"PATH": os.defpath})
        stores.ensure(self.project, empty)
        self.job = self.project.jobs / f"{1:026d}"
        (self.job / records.TASK_FOLDER).mkdir(parents=True)
        stores.task_template(self.project, empty, stores.Experiment("0", "Default", ""), self.job / records.TEMPLATE)
        spec = records.PreparedJob(
            self.job.name, "bench", "command", str(self.project.root), "bench", "2024-01-01T00:00:00+00:00", tasks=self.writers
        )
        (self.job / records.SPEC).write_bytes(records.dump(spec))
        shutil.copytree(self.project.root, self.root / "start")

    def write(self, writer: int) -> None:
        """One task: its own copy of the template, published half way and at the end."""
        from lossi.contract import records
        from lossi.runner import publish

        store = self.node / str(writer) / "tracking.db"
        store.parent.mkdir(parents=True)
        shutil.copy(self.job / records.TEMPLATE, store)
        folder = self.job / records.TASK_FOLDER / str(writer)
        folder.mkdir()

        def half_way(step: int) -> None:
            if step == POINTS // 2:
                publish.publish(store, folder, 1)

        run = log(f"sqlite:///{store}", writer, half_way)
        last = publish.publish(store, folder, 2)
        os.link(last, self.kept / f"{writer}-{last.name}")
        (folder / records.EXIT).write_bytes(records.dump(records.TaskExit(writer, "succeeded", 0, run_ids=[run])))
        shutil.rmtree(store.parent)

    def again(self, name: str, writers: int):  # type: ignore[no-untyped-def]
        """A new project in which the last snapshots of some writers wait to be ingested."""
        from lossi.contract import records
        from lossi.projects import Project

        project = Project(self.root / name)
        shutil.copytree(self.root / "start", project.root)
        tasks = project.jobs / self.job.name / records.TASK_FOLDER
        for path in self.kept.iterdir():
            writer, _, file = path.name.partition("-")
            if int(writer) < writers:
                (tasks / writer).mkdir()
                os.link(path, tasks / writer / file)
                shutil.copy(self.job / records.TASK_FOLDER / writer / records.EXIT, tasks / writer / records.EXIT)
        return project


def complete(store: Path, writers: int) -> bool:
    """Whether every run and every point can be seen."""
    try:
        with contextlib.closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            runs = connection.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone()[0]
            return bool(runs >= writers and connection.execute("SELECT count(*) FROM metrics").fetchone()[0] >= writers * POINTS)
    except sqlite3.OperationalError:
        return False


def lost_and_doubled(store: Path, writers: int) -> tuple[int, int]:
    """Compare every point in a store with what was logged; returns (lost, doubled or wrong)."""
    sql = "SELECT t.value, m.key, m.step, m.value FROM metrics m JOIN tags t ON t.run_uuid = m.run_uuid AND t.key = 'writer'"
    with contextlib.closing(sqlite3.connect(store)) as connection:
        rows = [(int(writer), key, step, number) for writer, key, step, number in connection.execute(sql)]
        points = connection.execute("SELECT count(*) FROM metrics").fetchone()[0]
        runs = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
    points_expected = {(writer, "loss", step, value(writer, step)) for writer in range(writers) for step in range(POINTS)}
    points_stored = set(rows)
    wrong = len(points_stored - points_expected) + (points - len(points_stored)) + max(0, runs - writers)
    return len(points_expected - points_stored), wrong


def dump(project) -> dict[str, list[tuple[object, ...]]]:  # type: ignore[no-untyped-def]
    """Everything in the store and the ledger."""
    contents = {}
    for path, names in ((project.store, None), (project.index, LEDGER)):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                raise RuntimeError(f"{path} is damaged")
            tables = names or [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                contents[f"{path.name} {table}"] = sorted(connection.execute(f'SELECT * FROM "{table}"').fetchall(), key=repr)
    return contents


def taken_a_second(field: Field) -> float:
    """Return how many stores a second one ingest copies when all are waiting."""
    from lossi.tracking.ingest.entry import ingest_runs

    project = field.again("fresh", field.writers)
    begun = time.monotonic()
    report = ingest_runs(project)
    seconds = time.monotonic() - begun
    shutil.rmtree(project.root)
    return report.taken / seconds


def killed(field: Field, times: int) -> tuple[int, int, int]:
    """Kill ingest at random points and repeat it; returns (kills, of them within a transaction, dumps that differ)."""
    from lossi.tracking.ingest import session
    from lossi.tracking.ingest.entry import ingest_runs

    session.BATCH = 5  # many commits in a short time
    whole = field.again("whole", KILLED_TASKS)
    begun = time.monotonic()
    os.waitpid(fork(lambda: ingest_runs(whole)), 0)
    takes = time.monotonic() - begun
    expected = dump(whole)
    chance = random.Random(1)
    kills = in_commit = differing = 0
    while kills < times:
        project = field.again("killed", KILLED_TASKS)
        while True:
            child = fork(lambda project=project: ingest_runs(project))  # type: ignore[misc]
            time.sleep(chance.uniform(0, takes))
            os.kill(child, signal.SIGKILL)
            if os.waitpid(child, 0)[1] == 0:
                break
            kills += 1
            in_commit += project.store.with_name(f"{project.store.name}-journal").exists()
        ingest_runs(project)
        ingest_runs(project)
        differing += dump(project) != expected
        shutil.rmtree(project.root)
    return kills, in_commit, differing


def shared_store(root: Path, writers: int) -> tuple[float, int, int, int]:
    """Return (seconds, failed writers, lost, doubled) of writers on one store that MLflow itself opens for all."""
    from lossi.projects import Project, stores

    project = Project(root / "shared")
    project.root.mkdir()
    stores.ensure(project, stores.template([sys.executable], "bench", {"PATH": os.defpath}))
    seconds, failed = all_writers(writers, lambda writer: log(f"sqlite:///{project.store}", writer), PEER_LIMIT_S)
    return seconds, failed, *lost_and_doubled(project.store, writers)


@contextlib.contextmanager
def ingest_beside(field: Field) -> Iterator[None]:
    """Ingest what is published in another process than the writers', until everything is there."""
    from lossi.tracking.ingest.entry import ingest_runs

    def loop() -> None:
        while not complete(field.project.store, field.writers):
            ingest_runs(field.project)
            time.sleep(0.5)

    child = fork(loop)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def measure(root: Path, writers: int, peers: int, kills: int) -> list[dict[str, object]]:
    field = Field(root, writers)
    # Imported once, before any fork; no engine and no connection exists yet that a child could inherit.
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    gc.collect()
    gc.freeze()  # else each child would walk, and so copy, everything that mlflow imported

    with ingest_beside(field):
        seconds, failed = all_writers(writers, field.write)
        ended = time.monotonic()
        while not complete(field.project.store, writers) and time.monotonic() - ended < 300:
            time.sleep(0.05)
        visible = time.monotonic() - ended
    lost, doubled = lost_and_doubled(field.project.store, writers)

    rate = statistics.median(taken_a_second(field) for _ in range(3))
    done, in_commit, differing = killed(field, kills)
    peer_seconds, peer_failed, peer_lost, peer_doubled = shared_store(root, peers)
    ours_pace, peer_pace = writers * POINTS / seconds, (peers * POINTS - peer_lost) / peer_seconds
    return [
        {
            "id": "P6",
            "what": f"points lost + doubled: {writers} writers × {POINTS} points, {AT_ONCE} at once | {peers} on one shared MLflow store",
            "ours": f"{lost} + {doubled} of {writers * POINTS} ({failed} writers failed)",
            "peer": f"{peer_lost} + {peer_doubled} of {peers * POINTS} ({peer_failed} writers failed)",
            "ratio": None,
            "goal": "0 + 0",
            "met": (lost, doubled, failed) == (0, 0, 0),
        },
        {
            "id": "P6",
            "what": "from the last writer's end until all is visible",
            "ours": f"{visible:.1f} s",
            "peer": None,
            "ratio": None,
            "goal": "≤ 60 s",
            "met": visible <= 60,
        },
        {
            "id": "P6",
            "what": "points a second, all writers together, ingest beside them | on one shared MLflow store",
            "ours": f"{ours_pace:.0f}",
            "peer": f"{peer_pace:.0f}",
            "ratio": f"{ours_pace / peer_pace:.1f}×" if peer_pace else None,
            "goal": None,
            "met": None,
        },
        {
            "id": "P6",
            "what": f"stores of {POINTS} points ingested per second",
            "ours": f"{rate:.0f}",
            "peer": None,
            "ratio": None,
            "goal": None,
            "met": None,
        },
        {
            "id": "P6",
            "what": f"ingest killed at {done} random points ({in_commit} within a transaction) and repeated: dumps that differ",
            "ours": str(differing),
            "peer": None,
            "ratio": None,
            "goal": "0",
            "met": differing == 0,
        },
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--writers", type=int, default=1000)
    parser.add_argument("--peers", type=int, default=100)
    parser.add_argument("--kills", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lossi-p6-") as name:
        os.environ |= {"HOME": name, "XDG_CACHE_HOME": f"{name}/cache"}
        rows = measure(Path(name), options.writers, options.peers, options.kills)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(rows, ensure_ascii=False))


if __name__ == "__main__":
    main()
