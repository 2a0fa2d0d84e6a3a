"""Runs: taken in from the tasks' stores, asked for, compared, drawn, exported.

Reads and (ingest alone) writes ``<project>/.lossi/mlflow.db``; reads the job directories and the index; never imports
mlflow. Everything here is imported when first used: a command that asks one question loads what that question needs.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossi.tracking.artifact_files import artifacts, open_artifact
    from lossi.tracking.catching_up import catch_up
    from lossi.tracking.comparison import compare
    from lossi.tracking.exports import export
    from lossi.tracking.histories import history
    from lossi.tracking.ingest import IngestReport, ingest
    from lossi.tracking.models import Comparison, Experiment, Experiments, Histories, RunDetail, RunTable
    from lossi.tracking.query import search
    from lossi.tracking.runs import experiments, list_experiments, resolve, run

_PLACES = {
    "artifact_files": ("artifacts", "open_artifact"),
    "catching_up": ("catch_up",),
    "comparison": ("compare",),
    "exports": ("export",),
    "histories": ("history",),
    "ingest": ("IngestReport", "ingest"),
    "models": ("Comparison", "Experiment", "Experiments", "Histories", "RunDetail", "RunTable"),
    "query": ("search",),
    "runs": ("experiments", "list_experiments", "resolve", "run"),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "Comparison",
    "Experiment",
    "Experiments",
    "Histories",
    "IngestReport",
    "RunDetail",
    "RunTable",
    "artifacts",
    "catch_up",
    "compare",
    "experiments",
    "export",
    "history",
    "ingest",
    "list_experiments",
    "open_artifact",
    "resolve",
    "run",
    "search",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


class _Room(ModuleType):
    """Keeps ``tracking.ingest`` the function: importing the submodule of that name would put the module in its place."""

    @property
    def ingest(self) -> Any:
        return __getattr__("ingest")

    @ingest.setter
    def ingest(self, module: ModuleType) -> None:
        """Leave the name alone; the module stays importable by its full name."""


sys.modules[__name__].__class__ = _Room
