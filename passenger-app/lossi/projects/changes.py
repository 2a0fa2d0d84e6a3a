"""The diff between a commit and a snapshot, in the format of `git apply`, with secrets masked. Pure functions.

libgit2 compares two buffers without a repository, so no attributes or configuration of a repository apply.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from lossi.projects import secrets
from lossi.projects.git import Old


@dataclass(frozen=True)
class New:
    """A changed path in the snapshot. ``data`` None: too large to be shown."""

    data: bytes | None
    mode: int


def diff(old: Mapping[str, Old], new: Mapping[str, New]) -> bytes:
    """Return the unified diff of the changed paths, sorted by path.

    Parameters
    ----------
    old
        Every changed path as it is in the commit.
    new
        Those paths as they are in the snapshot; a missing path was deleted.
    """
    parts = []
    for path in sorted(old):
        before = old[path]
        after = New(before.new, before.mode) if before.new is not None else new.get(path)
        if before.data is None and after is None:
            continue
        parts.append(_diff_of(path, before, after))
    return secrets.masked(b"".join(parts))


def _diff_of(path: str, before: Old, after: New | None) -> bytes:
    name_a, name_b = _name("a/", path), _name("b/", path)
    header = [b"diff --git " + name_a + b" " + name_b]
    if before.data is None and after is not None:
        header.append(b"new file mode %o" % after.mode)
    elif after is None:
        header.append(b"deleted file mode %o" % before.mode)
    elif before.mode != after.mode:
        header += [b"old mode %o" % before.mode, b"new mode %o" % after.mode]
    body = _body(path, before, after)
    if body.startswith(b"@@"):
        header.append(b"--- " + (b"/dev/null" if before.data is None else _tabbed(name_a)))
        header.append(b"+++ " + (b"/dev/null" if after is None else _tabbed(name_b)))
    elif body:
        body = b"Binary files " + name_a + b" and " + name_b + b" differ" + body
    return b"\n".join(header) + b"\n" + body


def _body(path: str, before: Old, after: New | None) -> bytes:
    import pygit2

    if secrets.suspicious_name(path):
        return b" (not shown: the name looks like a secret)\n"
    if before.large or (after is not None and after.data is None):
        return b" (not shown: too large)\n"
    patch = pygit2.Patch.create_from(before.data or b"", (after.data if after is not None else b"") or b"")
    data: bytes = patch.data
    start = data.find(b"\n@@ ")
    if start >= 0:
        return data[start + 1 :]
    return b"\n" if data else b""


def _name(prefix: str, path: str) -> bytes:
    """Quote a path as git does if it has control characters, quotes, backslashes or is not UTF-8."""
    raw = os.fsencode(prefix + path)
    try:
        raw.decode()
        plain = all(byte >= 0x20 and byte not in b'"\\\x7f' for byte in raw)
    except UnicodeDecodeError:
        plain = False
    if plain:
        return raw
    known = {0x22: b'\\"', 0x5C: b"\\\\", 0x09: b"\\t", 0x0A: b"\\n", 0x0D: b"\\r"}
    quoted = (known.get(byte) or (b"%c" % byte if 0x20 <= byte < 0x7F else b"\\%03o" % byte) for byte in raw)
    return b'"' + b"".join(quoted) + b'"'


def _tabbed(name: bytes) -> bytes:
    """Append a tab to a name with spaces, as git does, so that its end is not read as a date."""
    return name + b"\t" if b" " in name and not name.startswith(b'"') else name
