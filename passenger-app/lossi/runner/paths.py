"""Where a task's files are: on node-local disk while it runs, then in the job directory."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

from ..contract import records
from .errors import TaskFailure

SAFE_PATH = re.compile(r"/[A-Za-z0-9_./+,@=:-]*")
"""Paths that are safe in ``sqlite:///`` URIs: ``?``, ``%`` and ``#`` would change them silently."""


@dataclass(frozen=True)
class TaskPaths:
    """The folders of one attempt of one task.

    Parameters
    ----------
    job
        The job directory, on the shared filesystem.
    task
        ``tasks/<n>`` in it.
    work
        A private folder on node-local disk, removed at the end; a path without links.
    rank
        Number of this process among the task's: 0 on the first node. The others leave only files of the user in ``task``.
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
        """Connection files, sockets and settings of kernels, which must not go to the home directory."""
        return self.work / "jupyter"

    @property
    def output(self) -> Path:
        """``$LOSSI_OUTPUT_DIR``."""
        return self.task / records.OUTPUT_FOLDER

    @property
    def collected(self) -> Path:
        """Where new files of the working directory are collected; each rank has its own folder."""
        return self.output / f"rank{self.rank}" if self.rank else self.output

    @property
    def log(self) -> Path:
        """The output of this process and its payload."""
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
        """Remove the node-local folder, even if there are read-only folders in it."""

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


def make(job: Path, task: int, environment: Mapping[str, str], rank: int = 0) -> TaskPaths:
    """Create the folders of a task.

    Raises
    ------
    TaskFailure
        When there is no usable node-local folder.
    OSError
        When the task's folder cannot be created.
    """
    folder = job / records.TASK_FOLDER / str(task)
    folder.mkdir(parents=True, exist_ok=True)
    problem = ""
    for base in (environment.get("TMPDIR"), "/tmp"):  # noqa: S108 - a private folder is made in it
        if not base:
            continue
        resolved = os.path.realpath(base)
        if not SAFE_PATH.fullmatch(resolved):
            problem = f"TMPDIR, {base!r}, cannot be used for a SQLite store"
            continue
        try:
            work = Path(tempfile.mkdtemp(prefix="lossi-", dir=resolved))  # 0700
            for inner in ("code", "tmp", "jupyter"):
                (work / inner).mkdir(mode=0o700)
            return TaskPaths(job, folder, work, rank)
        except OSError as error:
            problem = f"{resolved}: {error.strerror or error}"
    raise TaskFailure(f"no node-local folder to work in ({problem}): set TMPDIR to one")
