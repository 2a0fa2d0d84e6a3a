"""The columns of an answer about runs, and their cells; only selected columns are read."""

# ruff: noqa: S608  (statements contain only names from this package; values are always bound)
from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lossi.errors import InvalidInput, did_you_mean
from lossi.projects.facts import FACTS
from lossi.tracking.query.conditions import Clause, Matching, attribute_column, job_column
from lossi.tracking.query.filters import ALIASES, KINDS
from lossi.tracking.query.store import Store
from lossi.tracking.query.values import STORED_INFINITY, Cell, cell, number

ATTRIBUTES = (
    "run_id",
    "run_name",
    "experiment_id",
    "status",
    "start_time",
    "end_time",
    "user_id",
    "lifecycle_stage",
    "artifact_uri",
)
DEFAULT_ATTRIBUTES = ATTRIBUTES[:6]
DEFAULT_JOB = ("job_id", "task", "state", "elapsed_s")
SHOWN_SYSTEM_TAGS = ("mlflow.source.name", "mlflow.source.git.commit", "mlflow.runName")
TABLES = {"params": "params", "metrics": "latest_metrics", "tags": "tags"}
"""Prefix of a column → MLflow's table, in the order of an answer."""
WHOLE_TABLE_SHARE = 4
"""If more than one in four runs is selected, reading a whole table is faster than looking up each run."""

Cells = dict[tuple[str, str], list[Cell]]
"""(kind, key) of a column → its cells."""


@dataclass
class Selection:
    """Selected columns.

    Attributes
    ----------
    names
        In the order of the answer; the key ``*`` means all keys that occur.
    default
        The default selection, which leaves out MLflow's own tags and empty job facts.
    """

    names: list[tuple[str, str]] = field(default_factory=list)
    default: bool = False

    @property
    def with_jobs(self) -> bool:
        """Whether the project's index is needed."""
        return any(kind == "job" for kind, _ in self.names)


def select_columns(columns: Sequence[str] | None) -> Selection:
    """Parse names of columns: ``run_id``, ``params.lr``, ``metrics.*``, ``job.state``; None for the default.

    Raises
    ------
    InvalidInput
        For a name that is not a column.
    """
    if columns is None:
        names = [("attribute", name) for name in DEFAULT_ATTRIBUTES]
        names += [("job", name) for name in DEFAULT_JOB]
        return Selection([*names, *((kind, "*") for kind in TABLES)], default=True)
    selected: dict[tuple[str, str], None] = {}
    for name in columns:
        kind, key = _parse(name)
        if kind == "attribute" and key == "*":
            selected.update(dict.fromkeys(("attribute", attribute) for attribute in ATTRIBUTES))
        elif kind == "job" and key == "*":
            selected.update(dict.fromkeys(("job", column) for column in FACTS))
        else:
            selected[kind, key] = None
    return Selection(list(selected))


def _parse(name: str) -> tuple[str, str]:
    first, dot, key = name.partition(".")
    if not dot:
        first, key = "attribute", name
    kind = KINDS.get(first)
    if kind is None or kind == "dataset" or not key:
        raise InvalidInput(
            f"{name!r} is not a column", hint=did_you_mean(first, KINDS) or "write run_id, params.x, metrics.x, tags.x or job.x"
        )
    if len(key) > 1 and key[0] == key[-1] and key[0] in '`"':
        key = key[1:-1]
    if kind == "attribute":
        key = ALIASES.get(key, key)
    known = {"attribute": ATTRIBUTES, "job": tuple(FACTS)}.get(kind)
    if known and key != "*" and key not in known:
        raise InvalidInput(
            f"{name!r} is not a column",
            hint=did_you_mean(key, known)
            or f"{kind} columns are {', '.join(sorted(known))}"
            + ("; params, metrics and tags need their prefix, as in params.x" if kind == "attribute" else ""),
        )
    return {"param": "params", "metric": "metrics", "tag": "tags"}.get(kind, kind), key


def read_cells(
    store: Store, selection: Selection, run_ids: Sequence[str], also: Iterable[tuple[str, str]] = ()
) -> dict[str, list[Cell]]:
    """Return the selected columns of runs, each in the order of ``run_ids``.

    ``also`` are keys that get a column for ``*`` even if none of these runs has them.
    """
    runs = _Runs(store, run_ids)
    attributes = [key for kind, key in selection.names if kind == "attribute"]
    cells: Cells = {}
    _attributes(runs, attributes, cells)
    if selection.with_jobs and store.job_join:
        _jobs(runs, [key for kind, key in selection.names if kind == "job"], cells)
    for kind in TABLES:
        keys = [key for name, key in selection.names if name == kind]
        if keys:
            _keyed(runs, kind, None if "*" in keys else keys, cells, shown_only=selection.default)
    for kind, key in also:
        cells.setdefault((kind, key), [None] * len(run_ids))
    return _in_order(cells, selection, len(run_ids))


class _Runs:
    """The runs of an answer: the row of each, and how to read them from a table."""

    def __init__(self, store: Store, run_ids: Sequence[str]) -> None:
        self.store = store
        self.row_of = {run_id: row for row, run_id in enumerate(run_ids)}
        all_runs = int(store.rows(f"SELECT count(*) FROM {store.relations['runs']}")[0][0])
        self.whole_tables = len(run_ids) * WHOLE_TABLE_SHARE > all_runs

    def select(self, sql: str, run_column: str, *conditions: Clause) -> Iterable[tuple[Any, ...]]:
        """Return the rows of these runs, and of others if reading the whole table is faster."""
        clauses = list(conditions)
        if not self.whole_tables:
            clauses.append(Clause(f"{run_column} IN (SELECT value FROM json_each(?))", [json.dumps(list(self.row_of))]))
        where = f" WHERE {' AND '.join(clause.sql for clause in clauses)}" if clauses else ""
        return self.store.connection.execute(sql + where, [value for clause in clauses for value in clause.values])


def _in_order(cells: Cells, selection: Selection, rows: int) -> dict[str, list[Cell]]:
    result: dict[str, list[Cell]] = {}
    for kind, key in selection.names:
        if key == "*":
            for name in sorted(name for group, name in cells if group == kind):
                if is_shown(kind, name, selection):
                    result.setdefault(column_name(kind, name), cells[kind, name])
        elif (kind, key) in cells:
            result[column_name(kind, key)] = cells[kind, key]
        elif not (selection.default and kind == "job"):
            result[column_name(kind, key)] = [None] * rows
    return result


def is_shown(kind: str, key: str, selection: Selection) -> bool:
    """Return whether a key that occurs is in the answer."""
    return not (selection.default and kind == "tags" and key.startswith("mlflow.") and key not in SHOWN_SYSTEM_TAGS)


def column_name(kind: str, key: str) -> str:
    """Return the name of a column in an answer."""
    return key if kind == "attribute" else f"{kind}.{key}"


def _attributes(runs: _Runs, names: list[str], cells: Cells) -> None:
    if not names:
        return
    expressions = ", ".join(map(attribute_column, names))
    columns = _columns(runs, f"SELECT r.run_uuid, {expressions} FROM {runs.store.relations['runs']} r", len(names))
    for name, column in zip(names, columns, strict=True):
        # An experiment id is text in MLflow's clients.
        cells["attribute", name] = [None if v is None else str(v) for v in column] if name == "experiment_id" else column


def _jobs(runs: _Runs, names: list[str], cells: Cells) -> None:
    expressions = ", ".join(job_column(name) for name in names)
    store = runs.store
    columns = _columns(runs, f"SELECT r.run_uuid, {expressions} FROM {store.relations['runs']} r {store.job_join}", len(names))
    if any(value is not None for column in columns for value in column):
        cells.update({("job", name): column for name, column in zip(names, columns, strict=True)})


def _columns(runs: _Runs, sql: str, number_of_columns: int) -> list[list[Cell]]:
    columns: list[list[Cell]] = [[None] * len(runs.row_of) for _ in range(number_of_columns)]
    for run_id, *values in runs.select(sql, "r.run_uuid"):
        row = runs.row_of.get(run_id)
        if row is not None:
            for column, value in zip(columns, values, strict=True):
                column[row] = cell(value)
    return columns


def _keyed(runs: _Runs, kind: str, keys: list[str] | None, cells: Cells, *, shown_only: bool) -> None:
    row_of = runs.row_of
    is_nan = "e.is_nan" if kind == "metrics" else "0"
    sql = f"SELECT e.run_uuid, e.key, e.value, {is_nan} FROM {runs.store.relations[TABLES[kind]]} e"
    conditions = []
    if keys is not None:
        conditions.append(Clause("e.key IN (SELECT value FROM json_each(?))", [json.dumps(keys)]))
    elif kind == "tags" and shown_only:  # some of MLflow's own tags are long
        conditions.append(Clause("(e.key NOT GLOB 'mlflow.*' OR e.key IN (?, ?, ?))", list(SHOWN_SYSTEM_TAGS)))
    # This loop runs a hundred thousand times for 5,000 runs: ordinary values are handled without a call.
    columns: defaultdict[Any, list[Cell]] = defaultdict(lambda: [None] * len(row_of))
    for run_id, key, value, nan in runs.select(sql, "e.run_uuid", *conditions):
        if run_id in row_of:
            ordinary = type(value) is str or (type(value) is float and not nan and -STORED_INFINITY < value < STORED_INFINITY)
            columns[key][row_of[run_id]] = value if ordinary else number(value, nan)
    cells.update({(kind, str(key)): column for key, column in columns.items()})


def occurring(store: Store, selection: Selection, matching: Matching) -> list[tuple[str, str]]:
    """Return the keys that ``*`` means on all pages: those that occur in any matching run."""
    result: list[tuple[str, str]] = []
    for kind in (kind for kind, key in selection.names if key == "*"):
        table = store.relations[TABLES[kind]]
        sql = f"SELECT EXISTS (SELECT 1 FROM {table} e JOIN {matching.tables} ON r.run_uuid = e.run_uuid WHERE e.key = ? AND {matching.conditions})"
        for name in _keys(store, table):
            if is_shown(kind, name, selection) and store.rows(sql, [name, *matching.values])[0][0]:
                result.append((kind, name))
    return result


def _keys(store: Store, table: str) -> list[str]:
    """Return the distinct keys of a table by skipping along its primary key, which starts with the key."""
    sql = f"""
        WITH RECURSIVE keys(key) AS (
            SELECT min(key) FROM {table}
            UNION ALL
            SELECT (SELECT min(e.key) FROM {table} e WHERE e.key > keys.key) FROM keys WHERE keys.key IS NOT NULL
        )
        SELECT key FROM keys WHERE key IS NOT NULL
    """
    return [str(key) for (key,) in store.rows(sql)]
