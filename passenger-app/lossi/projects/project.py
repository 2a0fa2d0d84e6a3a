"""A project: the directory that holds code, jobs and the tracking store, and where each of them lies in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Project:
    """A directory that Lossi works in.

    Attributes
    ----------
    root
        Absolute path, links resolved.
    """

    root: Path

    @property
    def name(self) -> str:
        """The folder's name, which users see."""
        return self.root.name

    @property
    def home(self) -> Path:
        """``.lossi``, where everything of ours lies."""
        return self.root / ".lossi"

    @property
    def jobs(self) -> Path:
        """The job directories."""
        return self.home / "jobs"

    @property
    def store(self) -> Path:
        """The embedded MLflow store (SQLite, written by ingest and by MLflow's own tools)."""
        return self.home / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """The artifact root; one folder per experiment id."""
        return self.home / "artifacts"

    @property
    def index(self) -> Path:
        """``lossi.db``: job facts and the ingest ledger; can be deleted and is made again from the job directories."""
        return self.home / "lossi.db"
