"""A project: the directory of code, jobs and the tracking store, and the paths in it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from lossi.files import atomic, permissions
from lossi.projects import portal_names

IGNORE = b"# Keeps Lossi's files out of git.\n*\n"


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
        """Its name for users: the folder's name, or the name in Open OnDemand's Project Manager."""
        return portal_names.name_of(self.root) or self.root.name

    @property
    def home(self) -> Path:
        """``.lossi``, the folder of all our files."""
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
        """``lossi.db``: job facts and the ingest ledger; can be deleted and is rebuilt from the job directories."""
        return self.home / "lossi.db"

    def make_home(self) -> None:
        """Create ``.lossi`` and its folders if they do not exist.

        The mode is 0750, or 2770 in a group-writable project; a ``.gitignore`` in it keeps it out of git.

        Raises
        ------
        Forbidden, Unavailable
            When it cannot be created.
        """
        try:
            permissions.make_folder(self.home, like=self.root)
            for folder in (self.jobs, self.artifacts):
                permissions.make_folder(folder, like=self.home)
        except OSError as error:
            raise atomic.explained(error, self.home) from error
        ignore = self.home / ".gitignore"
        if not ignore.exists():
            atomic.create_exclusive(ignore, IGNORE)

    def share(self, path: Path) -> None:
        """Make one of our files group-writable if the project is; other users' files are left alone."""
        if permissions.is_shared(self.home):
            with contextlib.suppress(OSError):
                path.chmod(permissions.file_mode(self.home))
