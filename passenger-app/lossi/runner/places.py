"""Where a task's files lie: on node-local disk while it runs, in the job directory for good."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

from ..contract import records
from .writing import TaskFailure

SAFE_PATH = re.compile(r"/[A-Za-z0-9_./+,@=:-]*")
"""Paths that mean themselves in ``sqlite:///`` URIs: ``?``, ``%`` and ``#`` break them silently."""


@dataclass(frozen=True)
class Places:
    """The folders of one attempt of one task.

    Parameters
    ----------
    job
        The job directory, on the shared filesystem.
    task
        ``tasks/<n>`` in it.
    work
        A private folder on node-local disk, removed at the end. Resolved: no links on the way.
    rank
        Which of the task's processes: 0 is the first node's, the others leave nothing of their own in ``task`` but files of
        the user's.
    """

    job: Path
    task: Path
    work: Path
    rank: int = 0

    @property
    def code(self) -> Path:
        """The unpacked project."""
        return self.work / "code"

    @property
    def store(self) -> Path:
        """The task's own MLflow store."""
        return self.work / "tracking.db"

    @property
    def parameters(self) -> Path:
        """The task's line of tasks.jsonl, byte for byte."""
        return self.work / "parameters.json"

    @property
    def temporary(self) -> Path:
        """``TMPDIR`` of the payload."""
        return self.work / "tmp"

    @property
    def jupyter(self) -> Path:
        """Connection files, sockets and settings of kernels: nothing of a batch job goes to the home directory."""
        return self.work / "jupyter"

    @property
    def output(self) -> Path:
        """``$LOSSI_OUTPUT_DIR``."""
        return self.task / records.OUTPUT_FOLDER

    @property
    def collected(self) -> Path:
        """Where new files of the working directory are kept: each rank's have a folder of their own."""
        return self.output / f"rank{self.rank}" if self.rank else self.output

    @property
    def log(self) -> Path:
        """What this process and its payload print."""
        return self.task / (f"{records.LOG}.rank{self.rank}" if self.rank else records.LOG)

    @property
    def progress(self) -> Path:
        """``progress.json``."""
        return (self.work if self.rank else self.task) / records.PROGRESS

    @property
    def use(self) -> Path:
        """``use.jsonl``."""
        return (self.work if self.rank else self.task) / records.USE

    @property
    def notebook(self) -> Path:
        """The executed notebook."""
        return self.task / records.OUTPUT_NOTEBOOK

    def remove(self) -> None:
        """Remove the node-local folder, read-only folders in it included."""

        def retry(function: object, path: str, _error: object) -> None:
            try:
                os.chmod(os.path.dirname(path), 0o700)
                os.chmod(path, 0o700, follow_symlinks=False)
            except (OSError, NotImplementedError):
                pass
            try:
                os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
            except OSError:
                pass

        shutil.rmtree(self.work, onerror=retry)


def make(job: Path, task: int, environment: Mapping[str, str], rank: int = 0) -> Places:
    """Make the folders of a task.

    Raises
    ------
    TaskFailure
        When no node-local folder can be had.
    OSError
        When the task's folder cannot be made.
    """
    folder = job / records.TASK_FOLDER / str(task)
    folder.mkdir(parents=True, exist_ok=True)
    problem = ""
    for base in (environment.get("TMPDIR"), "/tmp"):  # noqa: S108 - the standard's own place, made private below
        if not base:
            continue
        resolved = os.path.realpath(base)
        if not SAFE_PATH.fullmatch(resolved):
            problem = f"the path of TMPDIR, {base!r}, cannot be used for a SQLite store"
            continue
        try:
            work = Path(tempfile.mkdtemp(prefix="lossi-", dir=resolved))  # 0700
            for inner in ("code", "tmp", "jupyter"):
                (work / inner).mkdir(mode=0o700)
            return Places(job, folder, work, rank)
        except OSError as error:
            problem = f"{resolved}: {error.strerror or error}"
    raise TaskFailure(f"there is no node-local folder to work in ({problem}): set TMPDIR to one")
