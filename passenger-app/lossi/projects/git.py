"""Read a git repository: commit, tracked, untracked and ignored files, and the old content of changed files. Only reads.

Uses libgit2, which has no external diffs, filter programs, fsmonitor or hooks, so no program in a repository's configuration can
run. The configuration could still point elsewhere: a repository is accepted only if its files and its working tree are its own
(`_refuse_pointers`).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lossi.files import permissions

SUBMODULE = 0o160000
MAX_DEPTH = 8
"""Of nested repositories."""

DIFF_LIMIT = 1 << 20
"""Bytes above which the diff of a file only says that it differs."""


class Unreadable(Exception):
    """The repository cannot or must not be read; the message says why."""


@dataclass(frozen=True)
class Old:
    """A changed path in the commit.

    Attributes
    ----------
    data
        Its content; None if the commit does not have the path.
    mode
        Git's file mode: 0o100644, 0o100755, 0o120000 (link) or 0o160000 (submodule).
    large
        Whether it is larger than `DIFF_LIMIT`, and ``data`` is empty.
    new
        Its new content, for a submodule; None: read it from the working tree.
    """

    data: bytes | None
    mode: int = 0o100644
    large: bool = False
    new: bytes | None = None


@dataclass
class Tree:
    """A working tree. Paths are relative to the folder that was read, with forward slashes."""

    commit: str | None = None
    branch: str | None = None
    remote: str | None = None
    tracked: list[str] = field(default_factory=list)
    untracked: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    """Ignored files, and folders that are ignored as a whole."""
    changed: dict[str, Old] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    repository: bool = True
    """False if the files were listed without git."""

    def add(self, inner: Tree, prefix: str, *, tracked: bool) -> None:
        """Add a nested repository."""
        for path in inner.tracked:
            (self.tracked if tracked else self.untracked).append(prefix + path)
        self.untracked += [prefix + path for path in inner.untracked]
        self.ignored += [prefix + path for path in inner.ignored]
        self.notes += [prefix + note for note in inner.notes]
        if tracked:
            self.changed |= {prefix + path: old for path, old in inner.changed.items()}

    def below(self, prefix: str) -> Tree:
        """Return the part of the tree below a folder (``prefix`` ends with ``/``)."""

        def cut(paths: list[str]) -> list[str]:
            return [path[len(prefix) :] for path in paths if path.startswith(prefix)]

        changed = {path[len(prefix) :]: old for path, old in self.changed.items() if path.startswith(prefix)}
        # An ignored folder can be the part itself.
        return Tree(
            self.commit,
            self.branch,
            self.remote,
            cut(self.tracked),
            cut(self.untracked),
            [path for path in cut(self.ignored) if path],
            changed,
            cut(self.notes),
        )


def read(root: Path) -> Tree | None:
    """Return the working tree below ``root``, or None if no repository tracks a file there.

    Raises
    ------
    Unreadable
        When the repository cannot or must not be read.
    """
    folder = repository_folder(root)
    if folder is None:
        return None
    with _any_owner():
        tree = _explained(folder)
    if folder != root:
        tree = tree.below(f"{root.relative_to(folder).as_posix()}/")
        if not tree.tracked:  # such as a home folder with its dotfiles in git
            return None
    return tree


def head(root: Path) -> tuple[str | None, str | None] | None:
    """Return commit and branch of the repository that contains ``root``, without checking files; None if there is none."""
    folder = repository_folder(root)
    if folder is None:
        return None
    import pygit2

    try:
        with _any_owner():
            return _head(_open(folder))
    except (Unreadable, pygit2.GitError, OSError, KeyError, ValueError):
        return None


def repository_folder(root: Path) -> Path | None:
    """Return the nearest folder from ``root`` upwards with a ``.git`` that no stranger can have created."""
    for folder in (root, *root.parents):
        if permissions.is_trusted_marker(folder, ".git"):
            return folder
    return None


def without_user(url: str) -> str:
    """Return a remote's URL without user, password, query and fragment."""
    if "://" not in url:
        return url.rsplit("@", 1)[-1]
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1], query="", fragment="").geturl()


def _explained(folder: Path, depth: int = 0) -> Tree:
    import pygit2

    try:
        return _read(folder, depth)
    except (pygit2.GitError, OSError, KeyError, ValueError, TypeError) as error:
        raise Unreadable(str(error)) from error


def _read(folder: Path, depth: int) -> Tree:
    from pygit2.enums import FileStatus

    repository = _open(folder)
    tree = Tree()
    tree.commit, tree.branch = _head(repository)
    tree.remote = _remote(repository)
    committed = repository.head.peel().tree if tree.commit else None
    submodules = {}
    for entry in repository.index:
        if entry.mode == SUBMODULE:
            submodules[entry.path] = str(entry.id)
        else:
            tree.tracked.append(entry.path)
    tree.tracked = sorted(set(tree.tracked))  # a path in conflict appears up to three times
    for path, flags in repository.status(untracked_files="all", ignored=True).items():
        bare = path.rstrip("/")
        if bare in submodules or flags == FileStatus.CURRENT:
            continue
        if flags & FileStatus.IGNORED:
            tree.ignored.append(bare)
        elif flags == FileStatus.WT_NEW:
            if path.endswith("/"):
                _add_inner(tree, folder, bare, depth, tracked=False)
            else:
                tree.untracked.append(path)
        else:
            tree.changed[path] = _old(repository, committed, path)
    for path, recorded in submodules.items():
        _add_inner(tree, folder, path, depth, tracked=True)
        _compare_submodule(tree, folder, committed, path, recorded)
    return tree


def _add_inner(tree: Tree, folder: Path, path: str, depth: int, *, tracked: bool) -> None:
    if depth >= MAX_DEPTH:
        tree.notes.append(f"{path} (repositories are nested too deep)")
        return
    if not permissions.is_trusted_marker(folder / path, ".git"):
        tree.notes.append(f"{path} (the submodule is not checked out)")
        return
    try:
        tree.add(_explained(folder / path, depth + 1), f"{path}/", tracked=tracked)
    except Unreadable as error:
        tree.notes.append(f"{path} (its repository cannot be read: {error})")


def _compare_submodule(tree: Tree, folder: Path, committed: Any, path: str, recorded: str) -> None:
    now = head_of(folder / path) or recorded
    before = None
    if committed is not None:
        with contextlib.suppress(KeyError):
            before = str(committed[path].id)
    if before != now:
        old = None if before is None else f"Subproject commit {before}\n".encode()
        tree.changed[path] = Old(old, SUBMODULE, new=f"Subproject commit {now}\n".encode())


def head_of(folder: Path) -> str | None:
    """Return the commit of the repository in ``folder`` itself, or None."""
    if not permissions.is_trusted_marker(folder, ".git"):
        return None
    commit_and_branch = head(folder)
    return commit_and_branch[0] if commit_and_branch else None


def _old(repository: Any, committed: Any, path: str) -> Old:
    if committed is None:
        return Old(None)
    try:
        entry = committed[path]
    except KeyError:
        return Old(None)
    if entry.filemode == SUBMODULE:
        return Old(f"Subproject commit {entry.id}\n".encode(), SUBMODULE)
    blob = repository[entry.id]
    if blob.size > DIFF_LIMIT:
        return Old(b"", entry.filemode, large=True)
    return Old(bytes(blob.data), entry.filemode)


def _head(repository: Any) -> tuple[str | None, str | None]:
    reference = repository.lookup_reference("HEAD")
    target = reference.raw_target
    branch = os.fsdecode(target).removeprefix("refs/heads/") if isinstance(target, bytes) else None
    if repository.head_is_unborn:
        return None, branch
    return str(repository.head.peel().id), branch


def _remote(repository: Any) -> str | None:
    try:
        return without_user(repository.remotes["origin"].url or "") or None
    except (KeyError, ValueError):
        return None


def _open(folder: Path) -> Any:
    import pygit2
    from pygit2.enums import RepositoryOpenFlag

    _refuse_pointers(folder / ".git")
    repository = pygit2.Repository(os.fspath(folder), RepositoryOpenFlag.NO_SEARCH)
    # `core.worktree` could name any folder of the user, and then the "working tree" would be private files.
    if repository.workdir is None or os.path.realpath(repository.workdir) != os.path.realpath(folder):
        raise Unreadable("its configuration names another working tree")
    return repository


def _refuse_pointers(marker: Path) -> None:
    """Refuse another user's repository that points to files elsewhere: its diff could show files that only the reader can read.

    Git's ``safe.directory`` refuses all repositories of other users. Here, shared repositories of a group are normal; refused are
    only those whose ``.git`` is or contains a pointer to something that its owner does not own.
    """
    try:
        mode = marker.lstat().st_mode
        if stat.S_ISDIR(mode):
            inner = marker
        elif stat.S_ISLNK(mode):
            inner = Path(os.path.realpath(marker))
            _same_owner(marker, inner)
        else:
            inner = _pointed(marker, "gitdir: ")
        for name in ("commondir", "objects/info/alternates"):
            if (inner / name).is_file():
                inner_target = _pointed(inner / name, "")
                if name == "commondir":
                    _refuse_links(inner_target)
        _refuse_links(inner)
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error


def _pointed(pointer: Path, prefix: str) -> Path:
    """Return the first target of a pointer file, after checking the owners of all targets."""
    text = os.fsdecode(pointer.read_bytes()[:65536])
    lines = [line.removeprefix(prefix) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise Unreadable(f"{pointer} is empty")
    # Alternates are relative to `objects`, other pointers to their own folder.
    base = pointer.parent.parent if pointer.name == "alternates" else pointer.parent
    targets = [Path(os.path.realpath(base / line)) for line in lines]
    for target in targets:
        if target.exists():
            _same_owner(pointer, target)
    return targets[0]


def _refuse_links(folder: Path) -> None:
    for name in ("objects", "refs", "HEAD", "index", "packed-refs", "config", "commondir"):
        if (folder / name).is_symlink():
            _same_owner(folder / name, Path(os.path.realpath(folder / name)))


def _same_owner(pointer: Path, target: Path) -> None:
    owner = pointer.lstat().st_uid
    if owner not in (os.geteuid(), target.stat().st_uid):
        raise Unreadable(f"{pointer} belongs to another user and points to files that are not theirs")


@contextlib.contextmanager
def _any_owner() -> Iterator[None]:
    """Let libgit2 open a colleague's repository in a shared project: no program in its configuration runs, see above."""
    import pygit2
    from pygit2.enums import Option

    pygit2.option(Option.SET_OWNER_VALIDATION, False)
    try:
        yield
    finally:
        pygit2.option(Option.SET_OWNER_VALIDATION, True)
