"""Any query in MLflow's language gives the runs of MLflow's own client, in the same order."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from mlflow import MlflowClient
from mlflow.entities import ViewType

from lossi import tracking
from lossi.errors import InvalidInput
from lossi.projects import Project

from . import random_store
from .conftest import make_project

SEEDS = 5
VIEWS = {"active": ViewType.ACTIVE_ONLY, "deleted": ViewType.DELETED_ONLY, "all": ViewType.ALL}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, template: Path) -> list[tuple[Project, MlflowClient, list[str]]]:
    """Projects with random stores, MLflow's client on each, and all their run ids."""
    result = []
    for seed in range(SEEDS):
        project = make_project(tmp_path_factory.mktemp("stores") / str(seed), template)
        random_store.fill(project.store, seed)
        client = MlflowClient(f"sqlite:///{project.store}")
        run_ids = [run.info.run_id for run in client.search_runs(["1", "2"], run_view_type=ViewType.ALL)]
        result.append((project, client, run_ids))
    return result


def ours(project: Project, page: int | None = None, **query: object) -> list[str]:
    """Return the ids that our search gives, page by page if there is a page size."""
    result: list[str] = []
    cursor = None
    while True:
        table = tracking.search(project, columns=["run_id"], limit=page, cursor=cursor, **query)  # type: ignore[arg-type]
        result += table.columns["run_id"]  # type: ignore[arg-type]
        cursor = table.next_cursor
        if cursor is None:
            assert table.total == len(result)
            return result
        assert len(result) < table.total, "the pages do not end"


@settings(max_examples=250)
@given(data=st.data())
def test_same_runs_in_the_same_order(filled: list[tuple[Project, MlflowClient, list[str]]], data: st.DataObject) -> None:
    project, client, run_ids = filled[data.draw(st.integers(0, SEEDS - 1), label="store")]
    filter = data.draw(random_store.filters(run_ids), label="filter")
    order_by = data.draw(random_store.orders, label="order_by")
    view = data.draw(st.sampled_from(["active", "deleted", "all"]), label="view")
    experiments = data.draw(st.sampled_from([["1"], ["2"], ["1", "2"]]), label="experiments")
    page = data.draw(st.sampled_from([None, None, 1, 7]), label="page")
    theirs = client.search_runs(experiments, filter, VIEWS[view], max_results=1000, order_by=order_by)
    our_ids = ours(project, page, filter=filter, order_by=order_by, view=view, experiments=experiments)
    assert our_ids == [run.info.run_id for run in theirs]


def test_the_random_queries_are_not_all_empty(filled: list[tuple[Project, MlflowClient, list[str]]]) -> None:
    project, _, run_ids = filled[0]
    sizes: list[int] = []

    @settings(max_examples=200, database=None)
    @given(random_store.filters(run_ids))
    def collect(filter: str) -> None:
        sizes.append(len(ours(project, filter=filter, view="all")))

    collect()
    assert len([size for size in sizes if 0 < size < len(run_ids)]) > 30


@pytest.mark.parametrize("experiment", ["1", "2", "0"])
def test_values_are_those_of_mlflow(filled: list[tuple[Project, MlflowClient, list[str]]], experiment: str) -> None:
    project, client, _ = filled[1]
    table = tracking.search(project, experiments=[experiment], limit=None, columns=["run_id", "params.*", "metrics.*", "tags.*"])
    for row, run in enumerate(client.search_runs([experiment], max_results=1000)):
        shown = functools.partial(_shown, table.columns, row)
        assert table.columns["run_id"][row] == run.info.run_id
        assert shown("params.") == run.data.params
        assert shown("tags.") == dict(run.data.tags)
        assert shown("metrics.") == {key: _as_json(value) for key, value in run.data.metrics.items()}


def _shown(columns: dict[str, list[object]], row: int, prefix: str) -> dict[str, object]:
    return {
        name[len(prefix) :]: column[row]
        for name, column in columns.items()
        if name.startswith(prefix) and column[row] is not None
    }


def _as_json(value: float) -> float | str:
    if value != value:
        return "NaN"
    return "Infinity" if value >= random_store.INFINITY else "-Infinity" if value <= -random_store.INFINITY else value


@pytest.mark.parametrize(
    "filter",
    [
        "params.lr = 1",
        "metrics.loss = '1'",
        "metrics.loss LIKE '1'",
        "metrics.loss IS NULL",
        "params.lr IN ('a')",
        "params.lr = 'a' OR params.lr = 'b'",
        "(params.lr = 'a')",
        "start_time = '5'",
        "parms.lr = 'a'",
        "Status = 'FINISHED'",
        "datasets.schema = 'x'",
        "params.lr NOT LIKE 'a'",
        "params.lr == 'a'",
        "params.lr <> 'a'",
        "run_id IN ()",
        "params.lr = `a`",
        "metrics.loss > nan",
        "params.lr",
        "params.lr =",
        "= 'a'",
        "run name = 'a'",
    ],
)
def test_what_mlflow_refuses_is_refused_with_a_position(
    filled: list[tuple[Project, MlflowClient, list[str]]], filter: str
) -> None:
    project, client, _ = filled[0]
    with pytest.raises(Exception, match=r"."):
        client.search_runs(["1"], filter)
    with pytest.raises(InvalidInput) as raised:
        tracking.search(project, filter=filter)
    assert 0 <= raised.value.details["position"] <= len(filter)
    assert raised.value.why and raised.value.hint


@pytest.mark.parametrize(
    "clause", ["", "metrics.loss NULLS FIRST", "metrics.loss, metrics.acc", "datasets.name", "nothing", "metrics.loss up", "loss"]
)
def test_orders_that_mlflow_refuses_are_refused(filled: list[tuple[Project, MlflowClient, list[str]]], clause: str) -> None:
    project, client, _ = filled[0]
    with pytest.raises(Exception, match=r"."):
        client.search_runs(["1"], order_by=[clause])
    with pytest.raises(InvalidInput):
        tracking.search(project, order_by=[clause])
    with pytest.raises(InvalidInput, match="twice"):
        tracking.search(project, order_by=["metrics.loss", "metrics.`loss` DESC"])
