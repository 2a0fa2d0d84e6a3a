"""The project's code as it is at submission: one archive, the diff against the commit, and what is linked instead of copied.

Reads the project (see `git`, `walk`, `links`), writes the two files it is told to. Nothing of the repository's configuration
is run, and no link is followed out of the project.
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
    """Write the project's tree as it is now.

    Taken are the files that git tracks, as they are in the working tree, and those it neither tracks nor ignores up to a
    limit; without git, all files up to that limit. Left out are caches, what looks like a secret, and what is no file. What git
    ignores, what ``*.dvc`` files track, what is over the limit and what links lead to outside the project is named in
    ``links`` for the job to see as it is then.

    Parameters
    ----------
    project
        Its whole folder is meant.
    archive
        Where the tar goes: names sorted, one fixed time and owner, so equal trees give equal bytes.
    diff
        Where the diff of tracked files against the commit goes, secrets masked. Written only when there is one; then
        ``diff_sha256`` is set.
    untracked_limit_bytes
        Of all untracked files together.
    include
        Paths relative to the project that are taken whatever git, the limit or their name says: the notebook itself.

    Returns
    -------
    CodeSnapshot
        ``dirty`` is whether the commit alone does not give this tree: tracked files differ, untracked ones were taken, or
        there is no commit. Without git it is False and ``commit`` None.

    Raises
    ------
    Forbidden
        When every user of the machine could write to the project or to a folder above it; when ``include`` leads out.
    NotFound
        When a path of ``include`` does not exist.
    Conflict
        When a file became shorter while it was read.
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
    """Return the working tree by git, or the files that are there where git cannot say."""
    try:
        found = git.read(root)
    except git.Unreadable as error:
        notes.append(f".git (the repository was not read: {error})")
        found = None
    if found is not None:
        return found
    listed = walk.listing(root)
    return git.Tree(untracked=listed.files, ignored=listed.aside, notes=listed.notes, repository=False)


def _private(path: str) -> bool:
    return path.split("/", 1)[0] == ".lossi" or ".git" in path.split("/")


def _inside(root: Path, path: str) -> str:
    """Return a path of ``include`` in the form that git has, refusing what is not a file of the project."""
    text = posixpath.normpath(path)
    if text.startswith(("/", "../")) or text in ("..", ".") or "\0" in text:
        raise Forbidden(f"{path} is not in the project", hint=f"name a file below {root}")
    if not os.path.lexists(root / text):
        raise NotFound(f"{path} does not exist in {root}", hint="was it moved or deleted? check its name")
    return text


def _shortened(notes: list[str]) -> list[str]:
    return notes if len(notes) <= MAX_NOTES else [*notes[:MAX_NOTES], f"… and {len(notes) - MAX_NOTES} more"]


class _Covered:
    """Whether a path is, or lies in, one of some paths."""

    def __init__(self, paths: Collection[str]) -> None:
        self.paths = set(paths)

    def has(self, path: str) -> bool:
        while path:
            if path in self.paths:
                return True
            path = posixpath.dirname(path)
        return False
