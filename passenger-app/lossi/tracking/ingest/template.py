"""The template of a job's tasks, which each task's store started from: a task's own changes are the difference from it.

Reads ``tracking.db`` of a job directory. Experiments and the model registry are shared by all tasks and by the people who use
the store, so only that difference is merged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lossi.tracking.ingest.ledger import Values, as_text
from lossi.tracking.ingest.snapshots import Contents, Reader, Refused, Row

EXPERIMENT_TABLES = ("experiments", "experiment_tags")
REGISTRY_TABLES = (
    "registered_models",
    "registered_model_tags",
    "registered_model_aliases",
    "model_versions",
    "model_version_tags",
)
EXPERIMENT_COLUMNS = ("name", "lifecycle_stage", "artifact_location")
MODEL_COLUMNS = ("description",)
VERSION_COLUMNS = (
    "creation_time",
    "description",
    "user_id",
    "current_stage",
    "source",
    "storage_location",
    "run_id",
    "run_link",
    "status",
    "status_message",
)
"""Columns of a model version that MLflow changes or, on deletion, redacts; and the creation time, which identifies it."""

Owned = dict[tuple[str, str], Values]
"""(table, owner) → values."""


@dataclass(frozen=True)
class Template:
    """What is shared in the template of a job.

    Attributes
    ----------
    known
        False without a readable template: then nothing tells what a task changed.
    """

    known: bool = False
    values: Owned = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)

    def matches(self, contents: Contents, tables: tuple[str, ...]) -> bool:
        """Return whether a snapshot's tables are those of the template."""
        return self.known and all(
            self.tables.get(table, []) == (contents.tables[table].rows if table in contents.tables else []) for table in tables
        )


def read(reader: Reader, path: Path) -> Template:
    """Return a job's template; an unknown one if it cannot be read (any more)."""
    try:
        contents = reader.read(path, None)
    except (Refused, OSError):
        return Template()
    try:
        values = {**experiments(contents), **registry(contents, lambda _, version: str(version))}
        for (model_id,) in contents.rows("logged_models", "model_id"):
            values["logged_models", str(model_id)] = {}
        tables = {
            table: list(contents.tables[table].rows) for table in EXPERIMENT_TABLES + REGISTRY_TABLES if table in contents.tables
        }
        return Template(True, values, tables)
    finally:
        contents.close()


def experiments(contents: Contents) -> Owned:
    """Return the columns and tags of experiments by their id in the snapshot."""
    owned: Owned = {}
    for record in contents.records("experiments"):
        owner = str(record["experiment_id"])
        owned["experiments", owner] = {column: record.get(column) for column in EXPERIMENT_COLUMNS}
    for owner_id, key, value in contents.rows("experiment_tags", "experiment_id", "key", "value"):
        owned.setdefault(("experiment_tags", str(owner_id)), {})[key] = value
    return owned


def registry(contents: Contents, version_of: Callable[[str, object], str | None]) -> Owned:
    """Return columns, tags and aliases of registered models and their versions.

    Parameters
    ----------
    contents
        A snapshot or template.
    version_of
        (model name, version in the snapshot) → version in the store, None for one to leave out.

    Returns
    -------
    dict
        By (table, owner); the owner of a version's values is ``<model name>/<version>``.
    """
    owned: Owned = {}
    for record in contents.records("registered_models"):
        owned["registered_models", record["name"]] = {column: record.get(column) for column in MODEL_COLUMNS}
    for name, key, value in contents.rows("registered_model_tags", "name", "key", "value"):
        owned.setdefault(("registered_model_tags", name), {})[key] = value
    for name, alias, version in contents.rows("registered_model_aliases", "name", "alias", "version"):
        if (number := version_of(name, version)) is not None:
            owned.setdefault(("registered_model_aliases", name), {})[alias] = number
    for record in contents.records("model_versions"):
        if (number := version_of(record["name"], record["version"])) is not None:
            owned["model_versions", f"{record['name']}/{number}"] = {
                column: as_text(record.get(column)) for column in VERSION_COLUMNS
            }
    for name, version, key, value in contents.rows("model_version_tags", "name", "version", "key", "value"):
        if (number := version_of(name, version)) is not None:
            owned.setdefault(("model_version_tags", f"{name}/{number}"), {})[key] = value
    return owned
