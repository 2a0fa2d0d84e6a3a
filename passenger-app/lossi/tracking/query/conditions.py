"""Conditions and orders as SQL over MLflow's tables, with the meaning they have in MLflow's own store.

Follows `_get_sqlalchemy_filter_clauses` and `_get_orderby_clauses` of mlflow/store/tracking/sqlalchemy_store.py (3.17).
Values are never part of the SQL text.
"""

# ruff: noqa: S608  (statements contain only names from this package; values are always bound)
from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from lossi.tracking.query.filters import Condition, Order, Reference, Value

RUN_NAME_TAG = "mlflow.runName"
CONTEXT_TAG = "mlflow.data.context"
ATTRIBUTE_COLUMNS = {"run_id": "run_uuid", "run_name": "name"}
"""Attributes with another name in the table `runs`."""


@dataclass
class Clause:
    """A piece of SQL and the values of its question marks."""

    sql: str
    values: list[object] = field(default_factory=list)


@dataclass(frozen=True)
class Matching:
    """The selected runs: ``FROM tables WHERE conditions`` with the run as ``r``; ``values`` are those of the conditions."""

    tables: str
    conditions: str
    values: list[object]


@dataclass(frozen=True)
class Key:
    """One column of the sort key."""

    sql: str
    ascending: bool


@dataclass
class Ordering:
    """The joins of an order and the whole sort key; its last column is the run id, so no two rows are equal."""

    joins: Clause
    keys: list[Key]


def needs_jobs(conditions: Sequence[Condition], orders: Sequence[Order]) -> bool:
    """Return whether the project's index must be joined."""
    references = [condition.reference for condition in conditions] + [order.reference for order in orders]
    return any(reference.kind == "job" for reference in references)


def where(conditions: Sequence[Condition], relations: dict[str, str]) -> Clause:
    """Return the conditions on a run ``r`` (and, for job columns, on ``l`` and ``t``), joined by AND; ``1`` without any.

    ``relations`` are those of `store.Store`.
    """
    clauses = [_condition(condition, relations) for condition in conditions]
    return Clause(" AND ".join(f"({c.sql})" for c in clauses) or "1", [value for c in clauses for value in c.values])


def job_column(key: str) -> str:
    """Return the expression of a job column; a run's task is known before the task has facts."""
    return f"l.{key}" if key in ("job_id", "task") else f't."{key}"'


def attribute_column(key: str) -> str:
    """Return the expression of an attribute."""
    return f"r.{ATTRIBUTE_COLUMNS.get(key, key)}"


def _condition(condition: Condition, relations: dict[str, str]) -> Clause:
    reference, comparator = condition.reference, condition.comparator
    if reference.kind == "job":
        return _compared(job_column(reference.key), comparator, condition.value)
    if reference.kind == "dataset":
        return _dataset(condition, relations)
    if reference.kind == "attribute" and reference.key != "run_name":
        return _compared(attribute_column(reference.key), comparator, condition.value)
    table, key = _entity(reference)
    exists = f"EXISTS (SELECT 1 FROM {relations[table]} e WHERE e.run_uuid = r.run_uuid AND e.key = ?"
    if comparator in ("IS NULL", "IS NOT NULL"):
        return Clause(f"{'NOT ' if comparator == 'IS NULL' else ''}{exists})", [key])
    compared = _compared("e.value", comparator, condition.value)
    if table == "latest_metrics":
        # NaN is stored as 0: it is unequal to every number, and no other comparison holds.
        compared.sql = f"{compared.sql} OR e.is_nan = 1" if comparator == "!=" else f"{compared.sql} AND e.is_nan = 0"
    return Clause(f"{exists} AND ({compared.sql}))", [key, *compared.values])


def _entity(reference: Reference) -> tuple[str, str]:
    if reference.kind == "attribute":
        return "tags", RUN_NAME_TAG
    return {"metric": "latest_metrics", "param": "params", "tag": "tags"}[reference.kind], reference.key


def _dataset(condition: Condition, relations: dict[str, str]) -> Clause:
    tables = f"{relations['inputs']} i JOIN {relations['datasets']} d ON d.dataset_uuid = i.source_id"
    if condition.reference.key == "context":
        tables += f" JOIN {relations['input_tags']} c ON c.input_uuid = i.input_uuid AND c.name = '{CONTEXT_TAG}'"
        compared = _compared("c.value", condition.comparator, condition.value)
    else:
        compared = _compared(f"d.{condition.reference.key}", condition.comparator, condition.value)
    return Clause(f"EXISTS (SELECT 1 FROM {tables} WHERE i.destination_id = r.run_uuid AND ({compared.sql}))", compared.values)


def _compared(column: str, comparator: str, value: Value) -> Clause:
    if comparator in ("IS NULL", "IS NOT NULL"):
        return Clause(f"{column} {comparator}")
    if comparator in ("IN", "NOT IN"):
        assert isinstance(value, tuple)
        return Clause(f"{column} {comparator} (SELECT value FROM json_each(?))", [json.dumps(value)])
    if comparator == "LIKE":
        # MLflow switches its connections to case-sensitive LIKE; GLOB always is.
        return Clause(f"{column} GLOB ?", [_glob(str(value))])
    if comparator == "ILIKE":
        return Clause(f"lower({column}) LIKE lower(?)", [value])
    return Clause(f"{column} {comparator} ?", [value])


def _glob(pattern: str) -> str:
    translated = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    return re.sub(r"[%_*?\[]", lambda match: translated[match.group()], pattern)


def ordering(orders: Sequence[Order], relations: dict[str, str]) -> Ordering:
    """Return the sort key: the orders, then newest first, then the run id; NaN after numbers, missing values last."""
    joins = Clause("")
    keys: list[Key] = []
    for number, order in enumerate(orders):
        reference = order.reference
        if reference.kind in ("attribute", "job"):
            column = job_column(reference.key) if reference.kind == "job" else attribute_column(reference.key)
            keys.append(Key(f"{column} IS NULL", True))
        else:
            table, key = _entity(reference)
            alias = f"o{number}"
            joins.sql += f" LEFT JOIN {relations[table]} {alias} ON {alias}.run_uuid = r.run_uuid AND {alias}.key = ?"
            joins.values.append(key)
            column = f"{alias}.value"
            nan = f"WHEN {alias}.is_nan = 1 THEN 1 " if table == "latest_metrics" else ""
            keys.append(Key(f"CASE {nan}WHEN {column} IS NULL THEN 2 ELSE 0 END", True))
        keys.append(Key(column, order.ascending))
    if Reference("attribute", "start_time") not in [order.reference for order in orders]:
        keys += [Key("r.start_time IS NULL", True), Key("r.start_time", False)]
    keys.append(Key("r.run_uuid", True))
    return Ordering(joins, keys)


def after(keys: Sequence[Key], last: Sequence[object]) -> Clause:
    """Return the condition that a row comes after the row with the sort key ``last``."""
    alternatives: list[str] = []
    values: list[object] = []
    for position, key in enumerate(keys):
        equal = [f"({before.sql}) IS ?" for before in keys[:position]]
        alternatives.append(" AND ".join([*equal, f"({key.sql}) {'>' if key.ascending else '<'} ?"]))
        values += last[: position + 1]
    return Clause(" OR ".join(f"({alternative})" for alternative in alternatives), values)
