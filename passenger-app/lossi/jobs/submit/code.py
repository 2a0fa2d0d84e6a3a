"""Where the code of a job comes from: the project as it is now, or the snapshot of an earlier job.

Reads the project through `files.beneath`, takes snapshots through `projects.snapshot`, reads tar archives that Lossi wrote.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from lossi.contract.records import CODE, DIFF, CodeSnapshot, PreparedJob
from lossi.errors import Forbidden, InvalidInput, NotFound, did_you_mean
from lossi.files import beneath
from lossi.projects import Project, snapshot

READ_LIMIT_BYTES = 256 * 2**20
"""The largest notebook or script that is read."""


class Code(Protocol):
    """A tree of code that a job can run."""

    def locate(self, text: str) -> str:
        """Return the path of a file relative to the project, with forward slashes and links resolved.

        Raises
        ------
        Forbidden, NotFound, InvalidInput
            When it is outside, does not exist or is not a file.
        """
        ...

    def folder(self, text: str) -> str:
        """Return the path of a folder relative to the project; ``.`` is the project itself. Raises like `locate`."""
        ...

    def read(self, relative: str) -> bytes:
        """Return the content of a located file."""
        ...

    def take(self, archive: Path, diff: Path, *, untracked_limit_bytes: int, source: str | None) -> CodeSnapshot:
        """Write the tree to ``archive`` and its uncommitted changes to ``diff``; ``source`` is included even if git ignores it."""
        ...


class LiveCode:
    """The project's working tree as it is now."""

    def __init__(self, project: Project) -> None:
        self._root = project.root

    def locate(self, text: str) -> str:
        """See `Code.locate`."""
        real = self._inside(text)
        if not real.exists():
            raise self._missing(text, real)
        if not real.is_file():
            raise InvalidInput(f"{text} is not a file", hint="name a notebook or a script")
        if not os.access(real, os.R_OK):
            raise Forbidden(f"cannot read {text}", why="permission denied", hint=f"check its permissions: ls -l {real}")
        return real.relative_to(self._root).as_posix()

    def folder(self, text: str) -> str:
        """See `Code.folder`."""
        real = self._inside(text)
        if not real.is_dir():
            raise NotFound(f"there is no folder {text} in the project", hint="name a folder below the project")
        return real.relative_to(self._root).as_posix()

    def read(self, relative: str) -> bytes:
        """See `Code.read`."""
        return beneath.read_bytes(self._root, relative, READ_LIMIT_BYTES)

    def take(self, archive: Path, diff: Path, *, untracked_limit_bytes: int, source: str | None) -> CodeSnapshot:
        """See `Code.take`."""
        include = () if source is None else (source,)
        return snapshot.take(Project(self._root), archive, diff, untracked_limit_bytes=untracked_limit_bytes, include=include)

    def _inside(self, text: str) -> Path:
        try:
            real = Path(os.path.realpath(self._root / text))
        except (OSError, ValueError):
            raise InvalidInput(f"{text!r} is not a path", hint="name a file below the project") from None
        if not real.is_relative_to(self._root):
            raise Forbidden(
                f"{text} is outside the project",
                why=f"it leads to {real}",
                hint=f"copy it below {self._root}",
            )
        return real

    def _missing(self, text: str, real: Path) -> NotFound:
        names: list[str] = []
        with suppress(OSError):
            names = [entry.name for entry in os.scandir(real.parent) if entry.is_file()]
        return NotFound(
            f"there is no file {text} in the project",
            hint=did_you_mean(real.name, names) or f"paths are relative to {self._root}",
        )


class EarlierCode:
    """The code snapshot of an earlier job."""

    def __init__(self, directory: Path, job: PreparedJob) -> None:
        self._directory = directory
        self._job = job

    def locate(self, text: str) -> str:
        """See `Code.locate`."""
        path = posixpath.normpath(text)
        if not has(self._directory / CODE, path):
            raise NotFound(f"there is no file {text} in the code of job {self._job.id}", hint="name a file that is in it")
        return path

    def folder(self, text: str) -> str:
        """See `Code.folder`."""
        path = posixpath.normpath(text)
        if path.startswith(("/", "../")) or path == "..":
            raise Forbidden(f"{text} is outside the project", hint="name a folder below the project")
        return path

    def read(self, relative: str) -> bytes:
        """See `Code.read`."""
        with _open(self._directory / CODE) as archive:
            stream = archive.extractfile(archive.getmember(relative))
            return b"" if stream is None else stream.read(READ_LIMIT_BYTES)

    def take(self, archive: Path, diff: Path, *, untracked_limit_bytes: int, source: str | None) -> CodeSnapshot:
        """See `Code.take`. A copy, because damage to the earlier file would also hit a hard link."""
        shutil.copyfile(self._directory / CODE, archive)
        with suppress(FileNotFoundError):
            shutil.copyfile(self._directory / DIFF, diff)
        return self._job.code


def has(archive: Path, path: str) -> bool:
    """Return whether a code archive contains the file ``path``."""
    with _open(archive) as tar:
        return any(posixpath.normpath(member.name) == path and (member.isfile() or member.issym()) for member in tar)


def _open(archive: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(archive, "r:")
    except (OSError, tarfile.TarError) as error:
        raise NotFound(
            f"cannot read the code snapshot {archive}", why=str(error), hint="submit a new job, with the code as it is now"
        ) from None
