"""Git repositories for tests."""

from __future__ import annotations

from pathlib import Path

import pygit2


class Repository:
    """A git repository for tests, written with libgit2 so that the git program is not needed."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.git = pygit2.init_repository(str(root), initial_head="main")
        self.git.config["core.autocrlf"] = "false"

    def write(self, path: str, content: str | bytes = "x\n") -> Path:
        """Write a file of the working tree."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def commit(self, *paths: str) -> str:
        """Commit these paths, or everything that is not ignored."""
        self.git.index.read()
        if paths:
            for path in paths:
                self.git.index.add(path)
        else:
            self.git.index.add_all()
        self.git.index.write()
        who = pygit2.Signature("Test", "test@example.org", 1_700_000_000, 0)
        parents = [] if self.git.head_is_unborn else [self.git.head.target]
        return str(self.git.create_commit("HEAD", who, who, "test", self.git.index.write_tree(), parents))
