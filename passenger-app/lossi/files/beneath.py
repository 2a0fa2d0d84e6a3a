"""Open files below a folder that others can write to, with no race in which a link could be swapped in.

Each path component is opened relative to the descriptor of its parent with ``O_NOFOLLOW``; links are read and resolved here, from
the root's descriptor. So the opened file is below the root, whatever is renamed meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lossi.errors import Forbidden, InvalidInput, LossiError, NotFound, Unavailable

MAX_LINKS = 40
"""The limit of Linux for one path."""

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(BaseModel):
    """One name in a folder."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Literal["file", "folder", "link", "other"] = Field(
        description="A link that stays below the root has the kind of its target; `link` points outside the root or to nothing."
    )
    bytes: int = Field(description="Size of a file; 0 otherwise.")
    modified: float = Field(description="Seconds since the epoch.")


def open_beneath(root: Path, relative: str, flags: int = os.O_RDONLY, mode: int = 0o640) -> int:
    """Open a file or folder below ``root`` and return its descriptor; the caller closes it.

    Parameters
    ----------
    root
        A trusted folder; its own path may contain links.
    relative
        Path below it, with ``/`` as separator; ``""`` and ``"."`` mean the root itself.
    flags, mode
        As for `os.open`. Only regular files and folders are opened.

    Raises
    ------
    Forbidden
        For ``..``, an absolute path, NUL, a link that points outside ``root``, and anything but a file or folder; and when the user
        has no permission.
    NotFound
        When it does not exist.
    """
    parts = _parts(relative)
    with _explaining(relative), contextlib.ExitStack() as stack:
        return _Walk(root, relative, stack).open(parts, flags, mode)


def read_bytes(root: Path, relative: str, limit: int) -> bytes:
    """Return the content of a regular file below ``root``.

    Raises
    ------
    InvalidInput
        When it is larger than ``limit`` bytes.
    Forbidden, NotFound
        As for `open_beneath`; a folder is Forbidden too.
    """
    with os.fdopen(_open_file(root, relative), "rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise InvalidInput(f"{relative} is larger than {limit:,} bytes", hint="download it instead")
    return data


def list_folder(root: Path, relative: str = "") -> list[Entry]:
    """Return the entries of a folder below ``root``: folders first, then by name.

    Raises
    ------
    Forbidden, NotFound
        As for `open_beneath`.
    InvalidInput
        When it is not a folder.
    """
    descriptor = open_beneath(root, relative)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise InvalidInput(f"{relative} is not a folder", hint="open it as a file")
        with _explaining(relative):
            names = os.listdir(descriptor)  # noqa: PTH208  (pathlib cannot list a descriptor)
        entries = [entry for name in names if (entry := _entry(root, relative, descriptor, name)) is not None]
    finally:
        os.close(descriptor)
    return sorted(entries, key=lambda entry: (entry.kind != "folder", entry.name))


class _Walk:
    """Resolve one path. Holds a descriptor for each folder from the root down, so that ``..`` in a link's target goes to the
    folder that was passed, even if that was moved.
    """

    def __init__(self, root: Path, relative: str, stack: contextlib.ExitStack) -> None:
        self.root = root
        self.relative = relative
        self.links = 0
        self.stack = stack
        top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, top)
        self.folders = [top]

    def open(self, parts: list[str], flags: int, mode: int) -> int:
        todo = list(reversed(parts))
        while todo:
            part = todo.pop()
            if part == "..":  # only from a link's target
                if len(self.folders) == 1:
                    raise self._outside()
                self.folders.pop()
                continue
            here = self.folders[-1]
            try:
                if not todo:
                    return self._last(part, here, flags, mode)
                folder = os.open(part, FOLDER, dir_fd=here)
                self.stack.callback(os.close, folder)
                self.folders.append(folder)
            except OSError as error:
                # O_NOFOLLOW fails with ELOOP for a link, with O_DIRECTORY also with ENOTDIR.
                if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
                    raise
                todo += reversed(self._target(part, here, error))
        return os.open(".", (flags | FOLDER) & ~os.O_CREAT, dir_fd=self.folders[-1])

    def _last(self, name: str, here: int, flags: int, mode: int) -> int:
        # O_NONBLOCK: opening a named pipe without a writer would block.
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode, dir_fd=here)
        kind = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            os.close(descriptor)
            raise Forbidden(f"{self.relative} is neither a file nor a folder", hint="only files and folders can be opened")
        return descriptor

    def _target(self, name: str, here: int, error: OSError) -> list[str]:
        """Return the components of a link's target, relative to the current folder (an absolute target resets that to the root)."""
        try:
            text = os.readlink(name, dir_fd=here)
        except OSError:
            raise error from None  # not a link: a file in the middle of the path, or removed
        self.links += 1
        if self.links > MAX_LINKS:
            raise Forbidden(f"{self.relative} goes through too many links", hint="do its links form a loop?")
        if not text.startswith("/"):
            return [part for part in text.split("/") if part not in ("", ".")]
        inside = _inside(Path(text), self.root)
        if inside is None:
            raise self._outside()
        del self.folders[1:]
        return list(inside.parts)

    def _outside(self) -> Forbidden:
        return Forbidden(f"{self.relative} points outside {self.root}", hint="links may only point inside this folder")


def _inside(target: Path, root: Path) -> Path | None:
    """Return an absolute link target relative to the root, or None when it is outside.

    The result is resolved again from the root's descriptor, so asking the filesystem here opens no race.
    """
    for path, top in ((target, root), (Path(os.path.realpath(target)), Path(os.path.realpath(root)))):
        if ".." not in path.parts and path.is_relative_to(top):
            return path.relative_to(top)
    return None


def _parts(relative: str) -> list[str]:
    if "\0" in relative:
        raise Forbidden("a path cannot contain a NUL character", hint="name a file below the folder")
    if relative.startswith("/"):
        raise Forbidden(f"{relative} is an absolute path", hint="name a file below the folder")
    parts = [part for part in relative.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Forbidden(f"{relative} is outside the folder", hint="name a file below the folder, without `..`")
    return parts


def _entry(root: Path, relative: str, folder: int, name: str) -> Entry | None:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            try:
                descriptor = open_beneath(root, f"{relative}/{name}" if relative else name)
            except LossiError:
                return Entry(name=name, kind="link", bytes=0, modified=status.st_mtime)
            status = os.fstat(descriptor)
            os.close(descriptor)
    except OSError:  # removed meanwhile
        return None
    if stat.S_ISDIR(status.st_mode):
        return Entry(name=name, kind="folder", bytes=0, modified=status.st_mtime)
    if stat.S_ISREG(status.st_mode):
        return Entry(name=name, kind="file", bytes=status.st_size, modified=status.st_mtime)
    return Entry(name=name, kind="other", bytes=0, modified=status.st_mtime)


def _open_file(root: Path, relative: str) -> int:
    descriptor = open_beneath(root, relative)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Forbidden(f"{relative or 'the folder'} is not a file", hint="list it as a folder")
    return descriptor


@contextlib.contextmanager
def _explaining(relative: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        shown = relative or "the folder"
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise NotFound(f"{shown} does not exist", hint="was it removed? list its folder again") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Forbidden(f"cannot open {shown}", why="you have no permission", hint="ask its owner for access") from error
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise Forbidden(f"{shown} cannot be opened safely", hint="it is a link or a special file") from error
        raise Unavailable(
            f"cannot open {shown}", why=error.strerror or str(error), hint="check the filesystem and try again"
        ) from error
