"""The project's code at submission: one archive, the diff against the commit, and links to what is not copied.

Reads the project (see `git`, `walk`, `links`) and writes two files. Runs no programs from the repository's configuration and
follows no link outside the project.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Collection
from pathlib import Path

from lossi.contract import records
from lossi.errors import Forbidden, NotFound
from lossi.files import atomic, permissions
from lossi.projects import changes, git, links, packing, secrets, walk
from lossi.projects.project import Project

MAX_NOTES = 500


def take(
    project: Project, archive: Path, diff: Path, *, untracked_limit_bytes: int, include: Collection[str] = ()
) -> records.CodeSnapshot:
    """Write a snapshot of the project.

    Copied are tracked files as they are in the working tree, and untracked files up to a limit; without git, all files up to that
    limit. Left out are caches, likely secrets and special files. ``links`` lists what the job uses from the live project: ignored
    files, what ``*.dvc`` files track, untracked files over the limit, and targets of links outside the project.

    Parameters
    ----------
    project
        The whole folder is read.
    archive
        Path of the tar archive: sorted names, one fixed time and owner, so equal trees give equal bytes.
    diff
        Path of the diff of tracked files against the commit, secrets masked. Written only if there are changes; then
        ``diff_sha256`` is set.
    untracked_limit_bytes
        Total size of untracked files.
    include
        Paths relative to the project that are always copied, such as the notebook.

    Returns
    -------
    CodeSnapshot
        ``dirty``: the commit alone does not give this tree, because tracked files differ, untracked files were copied, or there
        is no commit. Without git it is False and ``commit`` is None.

    Raises
    ------
    Forbidden
        When the project or a folder above it is world-writable; when ``include`` has a path outside the project.
    NotFound
        When a path of ``include`` does not exist.
    Conflict
        When a file shrank while it was being read.
    """
    root = project.root
    permissions.refuse_open_ancestors(root)
    always = {_inside(root, path) for path in include}
    notes: list[str] = []
    tree = _tree(root, notes)
    outs = links.dvc_outs(root, [*tree.tracked, *tree.untracked])
    covered = _Covered(outs)
    tracked = [path for path in tree.tracked if path in always or not _private(path)]
    untracked = sorted({path for path in tree.untracked if path in always or not covered.has(path)} | (always - set(tracked)))
    choice = walk.choose(root, untracked, untracked_limit_bytes, always=always)
    new: dict[str, changes.New] = {}
    own = set(choice.kept) - always

    def inspect(path: str, mode: int, data: bytes | None) -> str | None:
        if path in tree.changed:
            new[path] = changes.New(data, mode)
        if path in own and data is not None and secrets.holds_private_key(data):
            return "holds a private key"
        return None

    packed, outside = packing.pack(
        root, [*tracked, *choice.kept], archive, inspect, lambda path, text: links.place(root, path, text)
    )
    linked, more = links.collect(root, [*tree.ignored, *outs, *choice.over, *outside], packed.paths)
    text = changes.diff({path: old for path, old in tree.changed.items() if path not in outside}, new)
    if text:
        atomic.write(diff, text)
    untracked_taken = not packed.paths.isdisjoint(choice.kept)
    return records.CodeSnapshot(
        sha256=packed.sha256,
        files=packed.files,
        bytes=packed.bytes,
        commit=tree.commit,
        branch=tree.branch,
        remote=tree.remote,
        dirty=tree.repository and (bool(tree.changed) or untracked_taken or tree.commit is None),
        diff_sha256=hashlib.sha256(text).hexdigest() if text else None,
        left_out=_shortened(sorted({*notes, *tree.notes, *choice.notes, *packed.left_out, *more})),
        links=linked,
    )


def _tree(root: Path, notes: list[str]) -> git.Tree:
    """Return the working tree from git, or without a usable repository the existing files."""
    try:
        if (tree := git.read(root)) is not None:
            return tree
    except git.Unreadable as error:
        notes.append(f".git (the repository was not read: {error})")
    listed = walk.list_files(root)
    return git.Tree(untracked=listed.files, ignored=listed.aside, notes=listed.notes, repository=False)


def _private(path: str) -> bool:
    return path.split("/", 1)[0] == ".lossi" or ".git" in path.split("/")


def _inside(root: Path, path: str) -> str:
    """Return a path of ``include`` in git's form; refuse paths that are not in the project."""
    text = posixpath.normpath(path)
    if text.startswith(("/", "../")) or text in ("..", ".") or "\0" in text:
        raise Forbidden(f"{path} is not in the project", hint=f"use a file below {root}")
    if not os.path.lexists(root / text):
        raise NotFound(f"{path} does not exist in {root}", hint="was it moved or deleted? check its name")
    return text


def _shortened(notes: list[str]) -> list[str]:
    return notes if len(notes) <= MAX_NOTES else [*notes[:MAX_NOTES], f"… and {len(notes) - MAX_NOTES} more"]


class _Covered:
    """Whether a path is, or is inside, one of the paths."""

    def __init__(self, paths: Collection[str]) -> None:
        self.paths = set(paths)

    def has(self, path: str) -> bool:
        while path:
            if path in self.paths:
                return True
            path = posixpath.dirname(path)
        return False
