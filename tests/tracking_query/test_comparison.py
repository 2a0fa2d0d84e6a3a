"""Comparisons of runs: what differs, what is equal, and the warnings; histories of metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from lossi import tracking
from lossi.errors import InvalidInput, NotFound
from lossi.projects import Project, index

SAME = {
    "mlflow.source.name": "train.ipynb",
    "mlflow.source.git.commit": "c1",
    "lossi.git_dirty": "false",
    "lossi.environment": "sklearn",
    "lossi.environment_variant": "x86_64-cuda",
    "lossi.image_digest": "sha256:1",
    "lossi.gpu_type": "A100",
    "lossi.gpu_driver": "550.1",
    "lossi.host": "n1",
    "lossi.job_id": "j1",
    "lossi.dataset.digits": "r1",
    "team": "x",
}

Maker = Callable[..., str]


@pytest.fixture
def make(client: MlflowClient) -> Maker:
    """Create a run with the tags of the runner, some of them replaced (None: left out)."""

    def make(params: dict[str, object] | None = None, **changed: str | None) -> str:
        tags = {**SAME, **{key.replace("__", "."): value for key, value in changed.items()}}
        run_id = client.create_run("0", tags={key: value for key, value in tags.items() if value is not None}).info.run_id
        for key, value in (params or {}).items():
            client.log_param(run_id, key, value)
        return str(run_id)

    return make


def test_what_differs_and_what_is_equal(project: Project, client: MlflowClient, make: Maker) -> None:
    first = make({"lr": 0.1, "model": "svc"})
    second = make({"lr": 0.2, "model": "svc", "extra": 1}, team="y", lossi__dataset__digits="r2")
    compared = tracking.compare(project, [second, first, second])
    assert [run.run_id for run in compared.runs] == [second, first], "in the requested order, each once"
    assert compared.differing == {
        "params.extra": ["1", None],
        "params.lr": ["0.2", "0.1"],
        "data.digits": ["r2", "r1"],
        "tags.team": ["y", "x"],
    }
    assert compared.equal == {
        "source": "train.ipynb",
        "commit": "c1",
        "dirty": "false",
        "environment": "sklearn",
        "variant": "x86_64-cuda",
        "image_digest": "sha256:1",
        "architecture": "x86_64",
        "gpu_type": "A100",
        "gpu_driver": "550.1",
        "host": "n1",
        "params.model": "svc",
    }
    assert compared.warnings == []


def test_metrics_have_last_smallest_and_largest_values_and_their_steps(
    project: Project, client: MlflowClient, make: Maker
) -> None:
    first, second = make(), make()
    client.log_batch(first, [Metric("loss", value, step, step) for step, value in enumerate([3.0, 1.0, 2.0, 1.0])])
    client.log_batch(second, [Metric("loss", value, step, step) for step, value in enumerate([math.nan, 5.0, -math.inf])])
    client.log_metric(second, "odd", math.nan)
    compared = tracking.compare(project, [first, second])
    loss = compared.metrics["loss"]
    assert (loss.last, loss.last_step) == ([1.0, "-Infinity"], [3, 2])
    assert (loss.min, loss.min_step) == ([1.0, "-Infinity"], [1, 2])
    assert (loss.max, loss.max_step) == ([3.0, 5.0], [0, 1])
    assert loss.differs
    odd = compared.metrics["odd"]
    assert (odd.last, odd.min, odd.max_step) == ([None, "NaN"], [None, None], [None, None])


@pytest.mark.parametrize(
    ("tag", "value", "code"),
    [
        ("lossi__environment", "pytorch", "environment"),
        ("lossi__environment_variant", "x86_64-rocm", "environment"),
        ("lossi__image_digest", "sha256:2", "environment"),
        ("lossi__image_digest", None, "environment"),
        ("lossi__packages_sha256", "p", "environment"),
        ("lossi__gpu_type", "H100", "gpu_type"),
        ("lossi__gpu_driver", "560.1", "gpu_driver"),
        ("mlflow__source__git__commit", "c2", "code"),
        ("lossi__git_dirty", "true", "code"),
    ],
)
def test_a_warning_if_more_than_the_parameters_differs(
    project: Project, make: Maker, tag: str, value: str | None, code: str
) -> None:
    compared = tracking.compare(project, [make(), make(), make(**{tag: value})])
    [warning] = compared.warnings
    assert warning.code == code and all(fact in compared.differing for fact in warning.facts)
    assert "(2 runs)" in warning.message and f"{value or 'not recorded'} (1 run)" in warning.message


def test_architectures_are_compared_by_the_variant_of_the_image(project: Project, make: Maker) -> None:
    compared = tracking.compare(project, [make(), make(lossi__environment_variant="aarch64-cuda")])
    assert [warning.code for warning in compared.warnings] == ["environment", "architecture"]
    assert compared.differing["architecture"] == ["x86_64", "aarch64"]
    explicit = tracking.compare(
        project, [make(lossi__environment_variant="local", lossi__architecture=a) for a in ("x86_64", "ppc64le")]
    )
    assert [warning.code for warning in explicit.warnings] == ["architecture"]


def test_equal_commits_with_changes_from_different_jobs_are_not_the_same_code(project: Project, make: Maker) -> None:
    runs = [make(lossi__git_dirty="true") for _ in range(2)]
    with index.writing(project) as connection:
        connection.executemany("INSERT INTO task_runs VALUES (?, ?, 0, 0)", zip(runs, ["j1", "j2"], strict=True))
    compared = tracking.compare(project, runs)
    assert [(warning.code, warning.facts) for warning in compared.warnings] == [("code", ["dirty"])]
    with index.writing(project) as connection:
        connection.execute("UPDATE task_runs SET job_id = 'j1'")
    assert tracking.compare(project, runs).warnings == []


def test_facts_of_the_task_replace_missing_tags(project: Project, make: Maker) -> None:
    runs = [make(lossi__gpu_type=None) for _ in range(2)]
    with index.writing(project) as connection:
        for task, run_id in enumerate(runs):
            connection.execute("INSERT INTO task_runs VALUES (?, 'j', ?, 0)", (run_id, task))
            connection.execute(
                "INSERT INTO tasks (job_id, task, state, gpu_type) VALUES ('j', ?, 'succeeded', ?)",
                (task, ["A100", "H100"][task]),
            )
    compared = tracking.compare(project, runs)
    assert compared.differing == {"gpu_type": ["A100", "H100"]}
    assert [warning.code for warning in compared.warnings] == ["gpu_type"]
    assert [(run.job_id, run.task) for run in compared.runs] == [("j", 0), ("j", 1)]


def test_datasets_are_compared_by_digest(project: Project, make: Maker, rows: Callable[..., None]) -> None:
    runs = [make(), make()]
    for digest in ("77", "78"):
        rows(
            "datasets",
            dataset_uuid=digest,
            experiment_id=0,
            name="digits",
            digest=digest,
            dataset_source_type="local",
            dataset_source="{}",
        )
        rows("inputs", input_uuid=digest, source_type="DATASET", source_id=digest, destination_type="RUN", destination_id=runs[0])
    rows("inputs", input_uuid="z", source_type="DATASET", source_id="78", destination_type="RUN", destination_id=runs[1])
    assert tracking.compare(project, runs).differing == {"datasets.digits": ["77, 78", "78"]}


def test_unknown_runs_are_reported(project: Project, make: Maker) -> None:
    with pytest.raises(NotFound, match="nope, neither") as raised:
        tracking.compare(project, ["nope", make(), "neither"])
    assert raised.value.details["run_ids"] == ["nope", "neither"]
    with pytest.raises(InvalidInput):
        tracking.compare(project, [])


def test_hundreds_of_runs_at_once(project: Project, rows: Callable[..., None]) -> None:
    runs = [f"{number:032x}" for number in range(300)]
    for number, run in enumerate(runs):
        rows("runs", run_uuid=run, status="FINISHED", start_time=number, lifecycle_stage="active", experiment_id=0)
        rows("params", run_uuid=run, key="seed", value=str(number))
    compared = tracking.compare(project, runs)
    assert compared.differing["params.seed"] == [str(number) for number in range(300)]


def test_histories_exact_and_in_buckets(project: Project, client: MlflowClient) -> None:
    short, long = (client.create_run("0").info.run_id for _ in range(2))
    client.log_batch(short, [Metric("loss", value, 100 + step, step) for step, value in enumerate([1.0, math.nan, math.inf])])
    client.log_batch(long, [Metric("loss", float(step % 10), 1000 + 10 * step, step) for step in range(100)])
    client.log_metric(long, "other", 1.0)
    histories = tracking.history(project, [short, long], ["loss", "absent"], buckets=5)
    assert [(s.run_id, s.key, s.points, s.exact) for s in histories.series] == [
        (short, "loss", 3, True),
        (long, "loss", 100, False),
    ]
    exact, cut = histories.series
    assert (exact.x, exact.last) == ([0, 1, 2], [1.0, "NaN", "Infinity"]) and exact.min is exact.max is exact.count is None
    assert (cut.x, cut.count) == ([19, 39, 59, 79, 99], [20] * 5)
    assert (cut.min, cut.max, cut.last) == ([0.0] * 5, [9.0] * 5, [9.0] * 5)
    timed = tracking.history(project, [long], ["loss"], buckets=2, x="time")
    assert timed.series[0].x == [1490, 1990]
    histories.model_dump_json()


def test_buckets_keep_extremes_nan_and_the_last_point_of_a_step(project: Project, client: MlflowClient) -> None:
    run_id = client.create_run("0").info.run_id
    points = [
        Metric("m", math.nan, 1, 0),
        Metric("m", 2.0, 2, 0),
        Metric("m", 5.0, 5, 9),
        Metric("m", 4.0, 6, 9),
        Metric("m", -math.inf, 1, 9),
    ]
    client.log_batch(run_id, [*points, Metric("m", math.nan, 1, 5), Metric("m", math.nan, 2, 5)])
    [series] = tracking.history(project, [run_id], ["m"], buckets=3).series
    assert (series.x, series.count) == ([0, 5, 9], [2, 2, 3])
    assert series.last == [2.0, "NaN", 4.0], "of one step the latest is the last"
    assert series.min == [2.0, "NaN", "-Infinity"] and series.max == [2.0, "NaN", 5.0]


def test_exact_histories_are_those_of_mlflow(project: Project, client: MlflowClient) -> None:
    run_id = client.create_run("0").info.run_id
    client.log_batch(run_id, [Metric("m", (step * 37 % 11) / 3, step * 7 % 5, step % 20) for step in range(60)])
    [series] = tracking.history(project, [run_id], ["m"]).series
    theirs = client.get_metric_history(run_id, "m")
    assert sorted(zip(series.x, series.last, strict=True)) == sorted((point.step, point.value) for point in theirs)
    assert series.x == sorted(series.x) and series.points == len(theirs)
    last = client.get_run(run_id).data.metrics["m"]
    assert series.last[-1] == last


@pytest.mark.parametrize(("runs", "buckets"), [(1, 2000), (100, 2000), (101, 1980), (5000, 40), (1_000_000, 2)])
def test_many_runs_get_fewer_buckets_each(runs: int, buckets: int) -> None:
    from lossi.tracking.query.histories import default_buckets

    assert default_buckets(runs) == buckets


@pytest.mark.parametrize("way", ["by key", "by run"])
def test_reading_by_run_and_by_key_give_the_same(project: Project, client: MlflowClient, way: str) -> None:
    run_id = client.create_run("0").info.run_id
    client.log_batch(run_id, [Metric("m", step / 2, step, step) for step in range(30)])
    if way == "by key":
        client.log_batch(run_id, [Metric(f"k{k}", 1.0, step, step) for k in range(9) for step in range(30)])
    else:
        for _ in range(9):
            client.log_batch(client.create_run("0").info.run_id, [Metric("m", 1.0, step, step) for step in range(30)])
    [series] = tracking.history(project, [run_id], ["m"]).series
    assert series.x == list(range(30)) and series.last == [step / 2 for step in range(30)]


@pytest.mark.parametrize(
    ("runs", "keys", "more"), [([], ["m"], {}), (["r"], [], {}), (["r"], ["m"], {"x": "epoch"}), (["r"], ["m"], {"buckets": 1})]
)
def test_invalid_histories_are_refused(project: Project, runs: list[str], keys: list[str], more: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        tracking.history(project, runs, keys, **more)  # type: ignore[arg-type]
    with pytest.raises(NotFound, match=re.escape("no run r")):
        tracking.history(project, ["r"], ["m"])
