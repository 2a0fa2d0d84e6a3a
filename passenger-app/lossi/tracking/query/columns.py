"""Which columns an answer about runs has, and the cells of those columns: only what was asked for is read."""

# ruff: noqa: S608  (statements are put together from names in this package only; values are always bound)
from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lossi.errors import InvalidInput, did_you_mean
from lossi.projects.facts import FACTS
from lossi.tracking.query.conditions import ATTRIBUTE_COLUMNS, Clause, Matching, job_column
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
"""Prefix of a column's name to MLflow's table; also the order of the groups in an answer."""
WHOLE_TABLE_SHARE = 4
"""With more than one in four runs asked for, reading a whole table is quicker than looking up each run."""


Found = dict[tuple[str, str], list[Cell]]


@dataclass
class Selection:
    """Which columns are wanted.

    Attributes
    ----------
    names
        In the order of the answer; ``*`` as the key stands for all keys that occur.
    default
        Nobody asked for columns: MLflow's own tags and empty job facts are left out.
    """

    names: list[tuple[str, str]] = field(default_factory=list)
    default: bool = False

    @property
    def with_jobs(self) -> bool:
        """Whether the project's index is needed."""
        return any(kind == "job" for kind, _ in self.names)


def selection(columns: Sequence[str] | None) -> Selection:
    """Read the names of columns: ``run_id``, ``params.lr``, ``metrics.*``, ``job.state``; None for the default.

    Raises
    ------
    InvalidInput
        For a name that is no column.
    """
    if columns is None:
        names = [("attribute", name) for name in DEFAULT_ATTRIBUTES]
        names += [("job", name) for name in DEFAULT_JOB]
        return Selection([*names, *((kind, "*") for kind in TABLES)], default=True)
    wanted: dict[tuple[str, str], None] = {}
    for name in columns:
        kind, key = _named(name)
        if kind == "attribute" and key == "*":
            wanted.update(dict.fromkeys(("attribute", attribute) for attribute in ATTRIBUTES))
        elif kind == "job" and key == "*":
            wanted.update(dict.fromkeys(("job", column) for column in FACTS))
        else:
            wanted[kind, key] = None
    return Selection(list(wanted))


def _named(name: str) -> tuple[str, str]:
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
    store: Store, wanted: Selection, run_ids: Sequence[str], also: Iterable[tuple[str, str]] = ()
) -> dict[str, list[Cell]]:
    """Return the wanted columns of the runs, each as long as ``run_ids`` and in its order.

    Parameters
    ----------
    store, wanted, run_ids
        Where from, which columns, and the rows.
    also
        Keys that get a column for ``*`` even if none of these runs has them.
    """
    rows = _Rows(store, run_ids)
    attributes = [key for kind, key in wanted.names if kind == "attribute"]
    found: Found = {}
    _attributes(rows, attributes, found)
    if wanted.with_jobs and store.job_join:
        _jobs(rows, [key for kind, key in wanted.names if kind == "job"], found)
    for kind in TABLES:
        keys = [key for name, key in wanted.names if name == kind]
        if keys:
            _keyed(rows, kind, None if "*" in keys else keys, found, shown_only=wanted.default)
    for kind, key in also:
        found.setdefault((kind, key), [None] * len(run_ids))
    return _arranged(found, wanted, len(run_ids))


class _Rows:
    """The runs of an answer: which row each one is, and how to find them in a table."""

    def __init__(self, store: Store, run_ids: Sequence[str]) -> None:
        self.store = store
        self.row_of = {run_id: row for row, run_id in enumerate(run_ids)}
        all_runs = int(store.rows(f"SELECT count(*) FROM {store.relations['runs']}")[0][0])
        self.whole_tables = len(run_ids) * WHOLE_TABLE_SHARE > all_runs

    def select(self, sql: str, run_column: str, *conditions: Clause) -> Iterable[tuple[Any, ...]]:
        """Return the rows of these runs, and of others where reading whole tables is quicker than looking runs up."""
        clauses = list(conditions)
        if not self.whole_tables:
            clauses.append(Clause(f"{run_column} IN (SELECT value FROM json_each(?))", [json.dumps(list(self.row_of))]))
        where = f" WHERE {' AND '.join(clause.sql for clause in clauses)}" if clauses else ""
        return self.store.connection.execute(sql + where, [value for clause in clauses for value in clause.values])


def _arranged(found: Found, wanted: Selection, rows: int) -> dict[str, list[Cell]]:
    result: dict[str, list[Cell]] = {}
    for kind, key in wanted.names:
        if key == "*":
            occurring = sorted(name for group, name in found if group == kind)
            for name in occurring:
                if is_shown(kind, name, wanted):
                    result.setdefault(column_name(kind, name), found[kind, name])
        elif (kind, key) in found:
            result[column_name(kind, key)] = found[kind, key]
        elif not (wanted.default and kind == "job"):
            result[column_name(kind, key)] = [None] * rows
    return result


def is_shown(kind: str, key: str, wanted: Selection) -> bool:
    """Return whether a key that occurs belongs into the answer."""
    return not (wanted.default and kind == "tags" and key.startswith("mlflow.") and key not in SHOWN_SYSTEM_TAGS)


def column_name(kind: str, key: str) -> str:
    """Return the name of a column in an answer."""
    return key if kind == "attribute" else f"{kind}.{key}"


def _attributes(rows: _Rows, names: list[str], found: Found) -> None:
    if not names:
        return
    expressions = ", ".join(f"r.{ATTRIBUTE_COLUMNS.get(name, name)}" for name in names)
    columns = _columns(rows, f"SELECT r.run_uuid, {expressions} FROM {rows.store.relations['runs']} r", len(names))
    for name, column in zip(names, columns, strict=True):
        # An id of an experiment is text in MLflow's clients.
        found["attribute", name] = [None if v is None else str(v) for v in column] if name == "experiment_id" else column


def _jobs(rows: _Rows, names: list[str], found: Found) -> None:
    expressions = ", ".join(job_column(name) for name in names)
    store = rows.store
    columns = _columns(rows, f"SELECT r.run_uuid, {expressions} FROM {store.relations['runs']} r {store.job_join}", len(names))
    if any(value is not None for column in columns for value in column):
        found.update({("job", name): column for name, column in zip(names, columns, strict=True)})


def _columns(rows: _Rows, sql: str, number_of_columns: int) -> list[list[Cell]]:
    columns: list[list[Cell]] = [[None] * len(rows.row_of) for _ in range(number_of_columns)]
    for run_id, *values in rows.select(sql, "r.run_uuid"):
        row = rows.row_of.get(run_id)
        if row is not None:
            for column, value in zip(columns, values, strict=True):
                column[row] = cell(value)
    return columns


def _keyed(rows: _Rows, kind: str, keys: list[str] | None, found: Found, *, shown_only: bool) -> None:
    row_of = rows.row_of
    is_nan = "e.is_nan" if kind == "metrics" else "0"
    sql = f"SELECT e.run_uuid, e.key, e.value, {is_nan} FROM {rows.store.relations[TABLES[kind]]} e"
    conditions = []
    if keys is not None:
        conditions.append(Clause("e.key IN (SELECT value FROM json_each(?))", [json.dumps(keys)]))
    elif kind == "tags" and shown_only:  # some of MLflow's own tags are long
        conditions.append(Clause("(e.key NOT GLOB 'mlflow.*' OR e.key IN (?, ?, ?))", list(SHOWN_SYSTEM_TAGS)))
    # This loop runs a hundred thousand times for 5,000 runs: whatever is ordinary is decided in it without a call.
    columns: defaultdict[Any, list[Cell]] = defaultdict(lambda: [None] * len(row_of))
    for run_id, key, value, nan in rows.select(sql, "e.run_uuid", *conditions):
        if run_id in row_of:
            ordinary = type(value) is str or (type(value) is float and not nan and -STORED_INFINITY < value < STORED_INFINITY)
            columns[key][row_of[run_id]] = value if ordinary else number(value, nan)
    found.update({(kind, str(key)): column for key, column in columns.items()})


def occurring(store: Store, wanted: Selection, matching: Matching) -> list[tuple[str, str]]:
    """Return the keys that ``*`` stands for in the whole of a question: those that occur in any matching run."""
    result: list[tuple[str, str]] = []
    for kind in (kind for kind, key in wanted.names if key == "*"):
        table = store.relations[TABLES[kind]]
        sql = f"SELECT EXISTS (SELECT 1 FROM {table} e JOIN {matching.tables} ON r.run_uuid = e.run_uuid WHERE e.key = ? AND {matching.conditions})"
        for name in _keys(store, table):
            if is_shown(kind, name, wanted) and store.rows(sql, [name, *matching.values])[0][0]:
                result.append((kind, name))
    return result


def _keys(store: Store, table: str) -> list[str]:
    """Return the distinct keys of a table by skipping through its primary key, which starts with the key."""
    sql = f"""
        WITH RECURSIVE found(key) AS (
            SELECT min(key) FROM {table}
            UNION ALL
            SELECT (SELECT min(e.key) FROM {table} e WHERE e.key > found.key) FROM found WHERE found.key IS NOT NULL
        )
        SELECT key FROM found WHERE key IS NOT NULL
    """
    return [str(key) for (key,) in store.rows(sql)]
