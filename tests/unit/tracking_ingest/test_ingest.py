"""Ingest of what tasks publish."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from ingest_support import NAN, World, dump, job_id

from lossi.tracking.ingest.entry import ingest_runs


def test_a_finished_task_is_ingested_and_its_file_removed(world: World) -> None:
    task = world.task()
    run = task.log.run("one")
    task.log.param(run, "lr", "0.1")
    task.log.tag(run, "lossi.job_id", job_id(1))
    for step, value in enumerate((1.0, NAN, float("inf"), -float("inf"))):
        task.log.metric(run, "loss", value, step, time=10 + step)
    task.log.end(run)
    task.finish(run)
    report = ingest_runs(world.project)
    assert (report.taken, report.runs, report.remaining, report.problems) == (1, 1, 0, ())
    assert world.rows("runs", "run_uuid, name, status, end_time") == [(run, "one", "FINISHED", 9)]
    assert world.rows("params", "key, value") == [("lr", "0.1")]
    assert world.rows("metrics", "step, value, is_nan, timestamp") == [
        (0, 1.0, 0, 10),
        (1, 0.0, 1, 11),
        (2, 1.7976931348623157e308, 0, 12),
        (3, -1.7976931348623157e308, 0, 13),
    ]
    assert world.rows("latest_metrics", "key, step, value") == [("loss", 3, -1.7976931348623157e308)]
    assert world.files() == []
    assert world.ledger("task_runs") == [(run, job_id(1), 0, 0)]
    assert world.ledger("ingested_jobs") == [(job_id(1), 1)]


def test_repeating_changes_nothing_and_a_completed_job_is_not_scanned_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = world.task()
    run = task.log.run("one")
    task.finish(run)
    ingest_runs(world.project)
    before = dump(world.project)
    scanned: list[str] = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(str(path)) or real(path))
    report = ingest_runs(world.project)
    assert report.taken == 0
    assert scanned == [str(world.project.jobs)]
    assert dump(world.project) == before


def test_a_running_task_shows_its_curve_and_only_new_snapshots_are_read(world: World) -> None:
    task = world.task()
    run = task.log.run("live")
    task.log.metric(run, "loss", 3.0, 0)
    task.publish()
    assert ingest_runs(world.project).taken == 1
    assert ingest_runs(world.project).taken == 0
    task.log.metric(run, "loss", 2.0, 1)
    task.publish()
    assert ingest_runs(world.project).taken == 1
    assert world.rows("metrics", "step, value") == [(0, 3.0), (1, 2.0)]
    assert world.rows("runs", "status") == [("RUNNING",)]
    assert len(world.files()) == 1
    task.log.end(run)
    task.finish(run)
    ingest_runs(world.project)
    assert world.rows("runs", "status") == [("FINISHED",)]
    assert world.files() == []


def test_the_last_snapshot_suffices_if_a_task_ends_without_another(world: World) -> None:
    task = world.task()
    run = task.log.run("killed")
    task.publish()
    ingest_runs(world.project)
    task.exit(run, state="node_failed")
    assert ingest_runs(world.project).taken == 1
    assert world.files() == []
    assert world.ledger("ingested_jobs") == [(job_id(1), 1)]


def test_a_task_without_tracking_ends_too(world: World) -> None:
    world.job(1, tasks=2)
    world.task(0).exit()
    world.task(1).exit()
    report = ingest_runs(world.project)
    assert (report.taken, report.remaining) == (0, 0)
    assert world.ledger("ingested_jobs") == [(job_id(1), 1)]


def test_the_tasks_own_run_comes_first(world: World) -> None:
    task = world.task()
    early, own = task.log.run("early", time=1), task.log.run("own", time=2)
    task.publish()
    ingest_runs(world.project)
    task.finish(own, early)
    ingest_runs(world.project)
    assert world.ledger("task_runs") == sorted([(own, job_id(1), 0, 0), (early, job_id(1), 0, 1)], key=repr)


def test_experiments_are_found_by_name_and_new_ones_get_the_next_id(world: World) -> None:
    with world.store() as store:
        store.experiment("digits")
    world.job(1, tasks=2)
    for number in range(2):
        task = world.task(number)
        task.log.run(f"a{number}", "digits")
        task.log.run(f"b{number}", "only in the task", time=50 + number)
        task.finish()
    ingest_runs(world.project)
    experiments = world.rows("experiments", "experiment_id, name, artifact_location")
    assert experiments[1:] == [(1, "digits", "/artifacts/digits"), (2, "only in the task", "/artifacts/only in the task")]
    assert world.rows("runs", "name, experiment_id") == [("a0", 1), ("a1", 1), ("b0", 2), ("b1", 2)]


def test_different_experiments_of_two_tasks_with_the_same_id_stay_apart(world: World) -> None:
    world.job(1, tasks=2)
    for number in range(2):
        task = world.task(number)
        run = task.log.run(f"run {number}", f"experiment {number}", time=number)
        task.log.dataset(run, "digits", "abc")
        task.log.trace(f"trace {number}", f"experiment {number}")
        task.finish()
    ingest_runs(world.project)
    assert world.rows("runs", "name, experiment_id") == [("run 0", 1), ("run 1", 2)]
    assert world.rows("trace_info", "experiment_id") == [(1,), (2,)]
    assert world.rows("spans", "experiment_id, duration_ns") == [(1, 7), (2, 7)]
    assert len(world.rows("datasets")) == 2
    dump(world.project)


def test_one_dataset_in_many_tasks_is_one_row(world: World) -> None:
    world.job(1, tasks=3)
    for number in range(3):
        task = world.task(number)
        task.log.dataset(task.log.run(f"run {number}"), "digits", "abc", context="test")
        task.finish()
    ingest_runs(world.project)
    datasets = world.rows("datasets", "dataset_uuid")
    assert len(datasets) == 1
    assert world.rows("inputs", "source_id") == datasets * 3
    assert world.rows("input_tags", "value") == [("test",)] * 3


def test_a_run_removed_for_good_never_returns(world: World) -> None:
    task = world.task()
    gone, kept = task.log.run("gone"), task.log.run("kept")
    for run in (gone, kept):
        task.log.metric(run, "loss", 1.0)
        task.log.tag(run, "k", "v")
    task.log.dataset(gone, "digits", "abc")
    task.publish()
    ingest_runs(world.project)
    with world.store() as store:  # what `mlflow gc` does
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            store.sql.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (gone,))
    for run in (gone, kept):
        task.log.metric(run, "loss", 0.5, 1)
        task.log.tag(run, "k", "v2")
    task.publish()
    ingest_runs(world.project)
    assert world.rows("runs", "name") == [("kept",)]
    task.finish(gone, kept)
    ingest_runs(world.project)
    assert world.rows("runs", "name") == [("kept",)]
    assert {run for (run,) in world.rows("metrics", "run_uuid") + world.rows("tags", "run_uuid")} == {kept}
    assert len(world.rows("metrics")) == 2


def test_a_deleted_run_stays_deleted_and_a_killed_one_stays_killed(world: World) -> None:
    task = world.task()
    deleted, killed = task.log.run("deleted"), task.log.run("killed")
    task.publish()
    ingest_runs(world.project)
    with world.store() as store:
        store.sql.execute("UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = 5 WHERE run_uuid = ?", (deleted,))
        store.end(killed, "KILLED", 7)
    task.log.metric(deleted, "loss", 1.0)
    task.publish()
    ingest_runs(world.project)
    assert world.rows("runs", "name, status, lifecycle_stage, end_time") == [
        ("deleted", "RUNNING", "deleted", None),
        ("killed", "KILLED", "active", 7),
    ]
    task.log.end(deleted)
    task.log.end(killed)
    task.finish()
    ingest_runs(world.project)
    assert world.rows("runs", "name, status, lifecycle_stage, deleted_time") == [
        ("deleted", "FINISHED", "deleted", 5),
        ("killed", "FINISHED", "active", None),
    ]


def test_a_run_deleted_by_its_task_can_be_restored_by_a_person(world: World) -> None:
    task = world.task()
    run = task.log.run("one")
    task.publish()
    ingest_runs(world.project)
    task.log.sql.execute("UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = 5")
    task.publish()
    ingest_runs(world.project)
    assert world.rows("runs", "lifecycle_stage, deleted_time") == [("deleted", 5)]
    with world.store() as store:
        store.sql.execute("UPDATE runs SET lifecycle_stage = 'active', deleted_time = NULL WHERE run_uuid = ?", (run,))
    task.finish()
    ingest_runs(world.project)
    assert world.rows("runs", "lifecycle_stage, deleted_time") == [("active", None)]


def test_edited_names_and_tags_win_over_later_snapshots(world: World) -> None:
    task = world.task()
    run = task.log.run("one")
    for key in ("edited", "removed", "theirs", "dropped"):
        task.log.tag(run, key, "1")
    task.publish()
    ingest_runs(world.project)
    with world.store() as store:
        store.tag(run, "edited", "by a person")
        store.tag(run, "removed", None)
        store.tag(run, "added", "by a person")
        store.sql.execute("UPDATE runs SET name = 'better'")
    for _ in range(2):
        for key in ("edited", "removed", "theirs", "added"):
            task.log.tag(run, key, f"later {task.seq}")
        task.log.tag(run, "dropped", None)
        task.log.sql.execute("UPDATE runs SET name = 'renamed by the task'")
        task.publish()
        ingest_runs(world.project)
    assert world.rows("tags", "key, value") == [("added", "by a person"), ("edited", "by a person"), ("theirs", "later 2")]
    assert world.rows("runs", "name") == [("better",)]


def test_a_task_renames_its_own_run(world: World) -> None:
    task = world.task()
    task.log.run("one")
    task.publish()
    ingest_runs(world.project)
    task.log.sql.execute("UPDATE runs SET name = 'two'")
    task.finish()
    ingest_runs(world.project)
    assert world.rows("runs", "name") == [("two",)]


def test_a_snapshot_that_disappears_during_the_scan_is_not_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from lossi.tracking.ingest.snapshots import Reader

    task = world.task()
    task.log.run("one")
    task.publish()

    def gone(self: Reader, path: Path, digest: str | None, **_: object) -> None:
        raise FileNotFoundError(path)

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "read", gone)
        report = ingest_runs(world.project)
    assert (report.taken, report.problems) == (0, ())
    assert ingest_runs(world.project).taken == 1


def test_a_budget_stops_between_batches_and_later_calls_do_the_rest(world: World) -> None:
    world.job(1, tasks=60)
    for number in range(60):
        task = world.task(number)
        task.log.run(f"run {number}")
        task.finish()
    report = ingest_runs(world.project, budget_s=0.0)
    assert 0 < report.taken + report.remaining <= 60
    assert report.remaining > 0
    taken = report.taken
    while report.remaining:
        report = ingest_runs(world.project, budget_s=0.05)
        taken += report.taken
    assert taken == 60
    assert len(world.rows("runs")) == 60
    assert world.ledger("ingested_jobs") == [(job_id(1), 1)]


def test_other_things_in_the_jobs_folder_are_left_alone(world: World, tmp_path: Path) -> None:
    task = world.task()
    task.log.run("one")
    task.finish()
    (world.project.jobs / "notes.txt").write_text("mine")
    (world.project.jobs / job_id(5)).mkdir()
    (world.project.jobs / job_id(6)).write_text("not a folder")
    tasks = world.project.jobs / job_id(7) / "tasks"
    (tasks / "00").mkdir(parents=True)
    (tasks / "x").mkdir()
    (tasks / "3").mkdir()
    (tasks / "3" / "tracking-1.db").write_text("no such name")
    (tmp_path / "elsewhere.db").write_bytes(b"secret")
    (tasks / "3" / "tracking-00000001-0123456789abcdef.db").symlink_to(tmp_path / "elsewhere.db")
    report = ingest_runs(world.project)
    assert (report.taken, report.problems) == (1, ())
    assert (tasks / "3" / "tracking-1.db").exists()


def test_a_deleted_store_is_recreated_from_a_jobs_template(world: World) -> None:
    task = world.task()
    task.log.run("one")
    task.finish()
    world.project.store.unlink()
    assert ingest_runs(world.project).taken == 1
    assert world.rows("runs", "name") == [("one",)]


def test_a_deleted_index_is_restored_from_the_tags_of_runs(world: World) -> None:
    world.job(1, tasks=2)
    first, second = world.task(0), world.task(1)
    runs = []
    for number, task in enumerate((first, second)):
        run = task.log.run(f"run {number}")
        task.log.tag(run, "lossi.job_id", job_id(1))
        task.log.tag(run, "lossi.task", str(number))
        runs.append(run)
    first.finish(runs[0])
    second.publish()
    ingest_runs(world.project)
    with world.store() as store:
        store.tag(runs[1], "note", "by a person")
    world.project.index.unlink()
    second.log.metric(runs[1], "loss", 1.0)
    second.finish(runs[1])
    ingest_runs(world.project)
    assert world.ledger("task_runs") == sorted([(runs[0], job_id(1), 0, 0), (runs[1], job_id(1), 1, 0)], key=repr)
    assert world.rows("runs", "name") == [("run 0",), ("run 1",)]
    assert world.rows("tags", "value", "WHERE key = 'note'") == [("by a person",)]
    assert world.ledger("ingested_jobs") == [(job_id(1), 1)]


def test_as_a_command_it_prints_one_line_of_json(world: World) -> None:
    task = world.task()
    task.log.run("one")
    task.finish()
    argv = [sys.executable, "-m", "lossi.tracking.ingest", "--project", str(world.project.root), "--budget", "30"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    report = json.loads(done.stdout)
    assert (report["taken"], report["runs"], report["remaining"], report["problems"]) == (1, 1, 0, [])


def test_nothing_heavy_is_imported(world: World) -> None:
    code = "import lossi.tracking.ingest.entry, sys; print(*(m for m in ('mlflow', 'numpy', 'pandas', 'sqlalchemy') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_project_without_jobs_is_idle(world: World) -> None:
    shutil.rmtree(world.project.jobs)
    report = ingest_runs(world.project)
    assert (report.taken, report.remaining, report.problems) == (0, 0, ())


def test_points_of_a_recreated_store_are_ingested_while_it_runs(world: World) -> None:
    """A requeued task whose store could not be restored starts from row 1 again."""
    task = world.task()
    run = task.log.run("one")
    for step in range(5):
        task.log.metric(run, "loss", 1.0, step)
    task.publish()
    ingest_runs(world.project)
    second = task.log.run("two")
    task.log.sql.execute("DELETE FROM metrics")
    task.log.metric(second, "loss", 2.0)
    task.publish()
    ingest_runs(world.project)
    assert len(world.rows("metrics", where=f"WHERE run_uuid = '{second}'")) == 1


def test_the_store_keeps_its_rollback_journal(world: World) -> None:
    with world.store() as store:
        store.sql.execute("PRAGMA journal_mode=WAL")
    task = world.task()
    task.log.run("one")
    task.finish()
    assert ingest_runs(world.project).taken == 1
    with sqlite3.connect(world.project.store) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
