"""Logged models, traces and the rarer tables of a task's store."""

from __future__ import annotations

import pytest
from ingest_support import World, dump

from lossi.tracking.ingest import snapshots
from lossi.tracking.ingest.entry import ingest_runs


def test_logged_models_keep_their_ids_and_the_newer_side_wins(world: World) -> None:
    task = world.task()
    run = task.log.run("one", "made by the task")
    model = task.log.model("net", run, 5)
    task.log.model_tag(model, "k", "1")
    task.log.model_tag(model, "edited", "1")
    task.publish()
    ingest_runs(world.project)
    with world.store() as store:
        store.model_tag(model, "edited", "by a person")
    task.log.sql.execute("UPDATE logged_models SET status = 3, last_updated_timestamp_ms = 9")
    task.log.model_tag(model, "k", "2")
    task.log.model_tag(model, "edited", "2")
    task.finish()
    ingest_runs(world.project)
    assert world.rows("logged_models", "model_id, experiment_id, status, source_run_id") == [(model, 1, 3, run)]
    assert world.rows("logged_model_tags", "tag_key, tag_value, experiment_id") == [("edited", "by a person", 1), ("k", "2", 1)]
    assert world.rows("logged_model_metrics", "metric_name, run_id, experiment_id") == [("acc", run, 1)]
    assert world.rows("logged_model_params", "param_value") == [("3",)]
    assert world.rows("inputs", "source_type, source_id, destination_id") == [("RUN_OUTPUT", run, model)]
    dump(world.project)


def test_a_model_deleted_or_removed_in_the_store_stays_so(world: World) -> None:
    task = world.task()
    run = task.log.run("one")
    deleted, removed = task.log.model("deleted", run, 5), task.log.model("removed", run, 5)
    task.log.model_tag(removed, "k", "1")
    task.publish()
    ingest_runs(world.project)
    with world.store() as store:
        store.sql.execute("UPDATE logged_models SET lifecycle_stage = 'deleted' WHERE model_id = ?", (deleted,))
        for table in ("logged_model_params", "logged_model_metrics", "logged_model_tags", "logged_models"):
            store.sql.execute(f"DELETE FROM {table} WHERE model_id = ?", (removed,))
    task.log.sql.execute("UPDATE logged_models SET status = 3, last_updated_timestamp_ms = 9")
    task.finish()
    ingest_runs(world.project)
    assert world.rows("logged_models", "model_id, lifecycle_stage, status") == [(deleted, "deleted", 3)]
    assert world.rows("logged_model_tags") == []
    dump(world.project)


def test_traces_grow_while_a_task_runs_and_removed_ones_do_not_return(world: World) -> None:
    task = world.task()
    kept, gone = task.log.trace("kept", status="IN_PROGRESS"), task.log.trace("gone")
    task.log.trace_tag(kept, "k", "1")
    task.publish()
    ingest_runs(world.project)
    with world.store() as store:
        for table, column in (("spans", "trace_id"), ("trace_tags", "request_id"), ("trace_info", "request_id")):
            store.sql.execute(f"DELETE FROM {table} WHERE {column} = ?", (gone,))
        store.trace_tag(kept, "note", "by a person")
    task.log.trace("kept", status="OK")
    task.log.trace_tag(kept, "k", "2")
    task.finish()
    ingest_runs(world.project)
    assert world.rows("trace_info", "request_id, status") == [(kept, "OK")]
    assert world.rows("spans", "trace_id, status") == [(kept, "OK")]
    assert world.rows("trace_tags", "key, value") == [("k", "2"), ("note", "by a person")]


def test_assessments_of_the_newer_side_win(world: World) -> None:
    task = world.task()
    trace = task.log.trace("call")
    common = {
        "trace_id": trace,
        "assessment_type": "feedback",
        "created_timestamp": 1,
        "source_type": "HUMAN",
        "valid": 1,
        "is_numeric_value": 0,
    }
    for name in ("ours", "theirs"):
        task.log.add("assessments", assessment_id=name, name=name, value="1", last_updated_timestamp=1, experiment_id=0, **common)
    task.publish()
    ingest_runs(world.project)
    with world.store() as store:
        store.sql.execute("UPDATE assessments SET value = 'person', last_updated_timestamp = 9 WHERE name = 'ours'")
    task.log.sql.execute("UPDATE assessments SET value = 'task', last_updated_timestamp = 5")
    task.finish()
    ingest_runs(world.project)
    assert world.rows("assessments", "name, value") == [("ours", "person"), ("theirs", "task")]


def test_late_traces_make_mlflow_rebuild_the_sums_of_their_days(world: World) -> None:
    task = world.task()
    task.log.trace("call")
    task.finish()
    with world.store() as store:
        store.add(
            "sql_trace_metric_daily_rollups",
            experiment_id=0,
            rollup_day="1970-01-01",
            metric_name="n",
            grouping_set="global",
            sample_count=1,
        )
    ingest_runs(world.project)
    assert world.rows("sql_trace_rollup_rebuild_queue") == [(0, "1970-01-01", "trace_metric")]


def test_evaluation_datasets_scorers_and_reviews_are_merged(world: World) -> None:
    task = world.task()
    task.log.run("one", "made by the task")
    task.log.add("evaluation_datasets", dataset_id="d-1", name="golden", last_update_time=1)
    record = {"dataset_record_id": "r-1", "dataset_id": "d-1", "inputs": "{}", "input_hash": "h", "last_update_time": 1}
    task.log.add("evaluation_dataset_records", **record)
    task.log.add("evaluation_dataset_tags", dataset_id="d-1", key="k", value="v")
    task.log.add("scorers", experiment_id=1, scorer_name="exact", scorer_id="s-1")
    task.log.add("scorer_versions", scorer_id="s-1", scorer_version=1, serialized_scorer="{}")
    task.publish()
    assert ingest_runs(world.project).unmerged_tables == ()
    task.log.sql.execute("UPDATE evaluation_dataset_records SET inputs = '[1]', last_update_time = 2")
    task.finish()
    assert ingest_runs(world.project).unmerged_tables == ()
    assert world.rows("evaluation_dataset_records", "inputs") == [("[1]",)]
    assert world.rows("scorers", "experiment_id, scorer_id") == [(1, "s-1")]
    assert world.rows("scorer_versions", "scorer_id, scorer_version") == [("s-1", 1)]
    dump(world.project)


def test_rows_that_cannot_be_merged_are_reported_and_their_file_is_kept(world: World) -> None:
    with world.store() as store:
        store.add("scorers", experiment_id=0, scorer_name="exact", scorer_id="s-0")
    world.job(1, tasks=2)
    task, other = world.task(0), world.task(1)
    task.log.run("one")
    task.log.add("webhooks", webhook_id="w", name="hook", url="http://localhost/")
    task.log.sql.execute("CREATE TABLE own (x)")
    task.log.sql.execute("INSERT INTO own VALUES (1)")
    task.log.add("scorers", experiment_id=0, scorer_name="exact", scorer_id="s-1")
    task.log.add("scorer_versions", scorer_id="s-1", scorer_version=1, serialized_scorer="{}")
    task.publish()
    assert ingest_runs(world.project).unmerged_tables == ("own", "scorers", "webhooks")
    task.finish()
    other.log.run("two")
    other.finish()
    report = ingest_runs(world.project)
    assert report.unmerged_tables == ("own", "scorers", "webhooks")
    assert report.taken == 2
    assert len(world.files()) == 1
    assert world.rows("scorer_versions") == []
    assert ingest_runs(world.project).taken == 0
    dump(world.project)


@pytest.mark.parametrize("how", ["large", "no deserialize"])
def test_large_stores_and_old_sqlite_give_the_same_rows(world: World, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "large":
        monkeypatch.setattr(snapshots, "LARGE_BYTES", 0)
        monkeypatch.setattr("lossi.tracking.ingest.writer.STEP_ROWS", 100)
        monkeypatch.setattr("lossi.tracking.ingest.session.HOLD_S", 0.0)
    else:
        real = hasattr
        monkeypatch.setattr(snapshots, "hasattr", lambda thing, name: name != "deserialize" and real(thing, name), raising=False)
    world.job(1, tasks=2)
    for number in range(2):
        task = world.task(number)
        run = task.log.run(f"run {number}", "made by the task")
        task.log.sql.execute("BEGIN")
        for step in range(1050):
            task.log.metric(run, "loss", 1 / (step + 1), step)
        task.log.sql.execute("COMMIT")
        task.log.dataset(run, "digits", "abc")
        task.log.trace("call", "made by the task")
        task.publish()
    assert ingest_runs(world.project).taken == 2
    for number in range(2):
        world.task(number).finish()
    assert ingest_runs(world.project).taken == 2
    assert len(world.rows("metrics")) == 2100
    assert len(world.rows("spans")) == 1
    assert world.files() == []
    dump(world.project)


def test_with_a_budget_large_stores_are_left_to_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lossi.tracking.ingest.session.LARGE_BYTES", 0)
    task = world.task()
    task.log.run("one")
    task.finish()
    report = ingest_runs(world.project, budget_s=5)
    assert (report.taken, report.remaining) == (0, 1)
    assert ingest_runs(world.project).taken == 1
