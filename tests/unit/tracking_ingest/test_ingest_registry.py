"""Registered models that tasks make, change and share with people."""

from __future__ import annotations

import json

from ingest_support import World

from lossi.contract import records
from lossi.tracking.ingest.entry import ingest_runs


def versions(world: World) -> list[tuple[object, ...]]:
    return world.rows("model_versions", "name, version, creation_time, run_id, source")


def test_two_tasks_that_register_one_model_get_versions_in_the_order_of_time(world: World) -> None:
    world.job(1, tasks=2)
    for number, time in ((0, 200), (1, 100)):
        task = world.task(number)
        run = task.log.run(f"run {number}")
        version = task.log.register("digits", run, time, f"models:/m-{number}")
        task.log.alias("digits", f"from-{number}", version)
        task.log.version_tag("digits", version, "task", str(number))
        task.finish()
    assert ingest_runs(world.project).taken == 2
    runs = dict(world.rows("runs", "name, run_uuid"))
    assert versions(world) == [
        ("digits", 1, 100, runs["run 1"], "models:/m-1"),
        ("digits", 2, 200, runs["run 0"], "models:/m-0"),
    ]
    assert world.rows("registered_model_aliases", "alias, version") == [("from-0", 2), ("from-1", 1)]
    assert world.rows("model_version_tags", "version, value") == [(1, "1"), (2, "0")]


def test_what_a_task_started_with_is_not_doubled(world: World) -> None:
    with world.store() as store:
        for time in (1, 2):
            store.register("digits", None, time)
        store.alias("digits", "champion", 1)
        store.version_tag("digits", 1, "k", "v")
        store.experiment("tuning")
        store.experiment_tag("tuning", "owner", "ada")
    task = world.task()
    task.log.register("digits", task.log.run("one", "tuning"), 3)
    task.finish()
    ingest_runs(world.project)
    assert [row[:3] for row in versions(world)] == [("digits", 1, 1), ("digits", 2, 2), ("digits", 3, 3)]
    assert world.rows("registered_model_aliases", "alias, version") == [("champion", 1)]
    assert world.rows("experiment_tags", "value") == [("ada",)]
    assert len(world.rows("experiments")) == 2


def test_a_version_keeps_its_number_through_later_snapshots(world: World) -> None:
    world.job(1, tasks=2)
    slow, quick = world.task(0), world.task(1)
    slow.log.register("digits", slow.log.run("slow"), 100)
    quick.log.register("digits", quick.log.run("quick"), 50)
    slow.publish()
    ingest_runs(world.project)
    quick.finish()
    ingest_runs(world.project)
    slow.log.register("digits", None, 300)
    slow.log.sql.execute("UPDATE model_versions SET description = 'good' WHERE creation_time = 100")
    slow.finish()
    ingest_runs(world.project)
    assert [row[:3] for row in versions(world)] == [("digits", 1, 100), ("digits", 2, 50), ("digits", 3, 300)]
    assert world.rows("model_versions", "version, description") == [(1, "good"), (2, None), (3, None)]


def test_a_version_or_model_removed_from_the_store_does_not_return(world: World) -> None:
    task = world.task()
    task.log.register("kept", None, 1)
    task.log.register("gone", None, 2)
    deleted = task.log.register("kept", None, 3)
    task.log.alias("kept", "champion", deleted)
    task.publish()
    ingest_runs(world.project)
    with world.store() as store:
        for table in ("model_versions", "registered_models"):
            store.sql.execute(f"DELETE FROM {table} WHERE name = 'gone'")
        store.sql.execute(
            "UPDATE model_versions SET current_stage = 'Deleted_Internal', source = 'REDACTED-SOURCE-PATH' WHERE version = 2"
        )
        store.sql.execute("DELETE FROM registered_model_aliases")
    task.log.run("one")
    task.finish()
    ingest_runs(world.project)
    assert world.rows("model_versions", "name, version, current_stage") == [("kept", 1, "None"), ("kept", 2, "Deleted_Internal")]
    assert world.rows("registered_models", "name") == [("kept",)]
    assert world.rows("registered_model_aliases") == []


def test_an_alias_moved_by_a_person_stays_and_one_moved_by_a_task_follows(world: World) -> None:
    with world.store() as store:
        for time in (1, 2):
            store.register("digits", None, time)
        store.alias("digits", "champion", 1)
        store.alias("digits", "candidate", 1)
        store.alias("digits", "old", 1)
    task = world.task()
    with world.store() as store:
        store.alias("digits", "champion", 2)
    new = task.log.register("digits", task.log.run("one"), 9)
    task.log.alias("digits", "champion", new)
    task.log.alias("digits", "candidate", new)
    task.log.alias("digits", "old", None)
    task.finish()
    ingest_runs(world.project)
    assert world.rows("registered_model_aliases", "alias, version") == [("candidate", 3), ("champion", 2)]


def test_an_alias_that_two_tasks_set_goes_to_the_later_version_in_any_order(world: World) -> None:
    for job, order in ((1, (0, 1)), (2, (1, 0))):
        world.job(job, tasks=2)
        name = f"model {job}"
        for number in range(2):
            task = world.task(number, job)
            task.log.alias(name, "champion", task.log.register(name, None, 100 + number))
        for number in order:
            world.task(number, job).publish()
            ingest_runs(world.project)
        for number in range(2):
            world.task(number, job).finish()
            ingest_runs(world.project)
    sql = (
        "SELECT creation_time FROM model_versions v JOIN registered_model_aliases a ON a.name = v.name AND a.version = v.version"
    )
    with world.store() as store:
        assert store.sql.execute(sql).fetchall() == [(101,), (101,)]


def test_links_to_a_version_follow_its_new_number(world: World) -> None:
    with world.store() as store:
        store.register("digits", None, 1)
    world.job(1, tasks=1)
    with world.store() as store:
        store.register("digits", None, 2)
    task = world.task()
    run = task.log.run("one")
    model = task.log.model("net", run, 5)
    version = task.log.register("digits", run, 5, f"models:/{model}")
    assert version == 2
    task.log.register("copy", None, 6, "models:/digits/2")
    task.log.model_tag(
        model, "mlflow.modelVersions", json.dumps([{"name": "digits", "version": 2}, {"name": "digits", "version": "1"}])
    )
    trace = task.log.trace("call")
    task.log.trace_tag(trace, "mlflow.linkedPrompts", json.dumps([{"name": "digits", "version": "2"}]))
    task.log.add(
        "entity_associations",
        association_id="a",
        source_type="trace",
        source_id=trace,
        destination_type="prompt_version",
        destination_id="digits/2",
    )
    task.finish()
    ingest_runs(world.project)
    assert [row[1:] for row in versions(world) if row[0] == "digits"][2] == (3, 5, run, f"models:/{model}")
    assert [row[4] for row in versions(world) if row[0] == "copy"] == ["models:/digits/3"]
    assert [json.loads(text) for (text,) in world.rows("logged_model_tags", "tag_value")] == [
        [{"name": "digits", "version": 3}, {"name": "digits", "version": "1"}]
    ]
    assert [json.loads(text) for (text,) in world.rows("trace_tags", "value")] == [[{"name": "digits", "version": "3"}]]
    assert world.rows("entity_associations", "destination_id") == [("digits/3",)]


def test_tags_and_descriptions_of_shared_models_and_experiments_are_merged(world: World) -> None:
    with world.store() as store:
        store.register("digits", None, 1)
        store.version_tag("digits", 1, "edited", "0")
        store.version_tag("digits", 1, "theirs", "0")
        store.experiment("tuning")
    world.job(1, tasks=2)
    with world.store() as store:
        store.version_tag("digits", 1, "edited", "by a person")
        store.experiment_tag("tuning", "note", "by a person")
    for number in range(2):
        task = world.task(number)
        for key in ("edited", "theirs"):
            task.log.version_tag("digits", 1, key, f"task {number}")
        task.log.experiment_tag("tuning", "note", f"task {number}")
        task.log.experiment_tag("tuning", "last", f"task {number}")
        task.log.sql.execute("UPDATE registered_models SET description = ?", (f"task {number}",))
        task.log.run(f"run {number}", "tuning")
        task.finish()
    ingest_runs(world.project)
    assert world.rows("model_version_tags", "key, value") == [("edited", "by a person"), ("theirs", "task 1")]
    assert world.rows("experiment_tags", "key, value") == [("last", "task 1"), ("note", "by a person")]
    assert world.rows("registered_models", "description") == [("task 1",)]


def test_without_a_template_only_new_things_are_added(world: World) -> None:
    with world.store() as store:
        store.register("digits", None, 1)
        store.alias("digits", "champion", 1)
    task = world.task()
    with world.store() as store:
        store.alias("digits", "champion", None)
    task.log.register("digits", task.log.run("one"), 2)
    new = task.log.register("other", None, 3)
    task.log.alias("other", "best", new)
    task.finish()
    (world.project.jobs / task.job / records.TEMPLATE).unlink()
    assert ingest_runs(world.project).taken == 1
    assert [row[:3] for row in versions(world)] == [("digits", 1, 1), ("digits", 2, 2), ("other", 1, 3)]
    assert world.rows("registered_model_aliases", "name, alias") == [("other", "best")]


def test_an_experiment_renamed_by_a_person_keeps_its_runs_together(world: World) -> None:
    with world.store() as store:
        store.experiment("tuning", time=7)
    task = world.task()
    task.log.run("one", "tuning")
    own = task.log.run("two", "made by the task", time=8)
    task.publish()
    ingest_runs(world.project)
    with world.store() as store:
        store.sql.execute("UPDATE experiments SET name = name || ' (old)' WHERE experiment_id > 0")
    task.log.metric(own, "loss", 1.0)
    task.log.run("three", "made by the task")
    task.log.run("four", "tuning")
    task.finish()
    ingest_runs(world.project)
    assert world.rows("experiments", "name") == [("Default",), ("made by the task (old)",), ("tuning (old)",)]
    assert world.rows("runs", "name, experiment_id") == [("four", 1), ("one", 1), ("three", 2), ("two", 2)]


def test_experiments_renamed_or_deleted_by_a_task_are_renamed_or_deleted(world: World) -> None:
    with world.store() as store:
        store.experiment("tuning", time=7)
        store.experiment("taken", time=8)
    task = world.task()
    task.log.run("one", "tuning")
    task.log.sql.execute("UPDATE experiments SET name = 'tuned' WHERE name = 'tuning'")
    task.log.sql.execute("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'taken'")
    task.finish()
    ingest_runs(world.project)
    assert world.rows("experiments", "name, lifecycle_stage") == [
        ("Default", "active"),
        ("taken", "deleted"),
        ("tuned", "active"),
    ]


def test_an_experiment_removed_from_the_store_returns_only_with_new_runs(world: World) -> None:
    with world.store() as store:
        store.experiment("tuning", time=7)
        store.experiment("unused", time=8)
    world.job(1, tasks=2)
    first, second = world.task(0), world.task(1)
    run = first.log.run("one", "tuning")
    first.publish()
    ingest_runs(world.project)
    with world.store() as store:
        store.sql.execute("DELETE FROM runs")
        store.sql.execute("DELETE FROM experiments WHERE experiment_id > 0")
    first.log.metric(run, "loss", 1.0)
    first.finish()
    ingest_runs(world.project)
    assert world.rows("experiments", "name") == [("Default",)]
    second.log.run("two", "tuning")
    second.finish()
    ingest_runs(world.project)
    assert world.rows("experiments", "name") == [("Default",), ("tuning",)]
    assert world.rows("runs", "name, experiment_id") == [("two", 1)]
