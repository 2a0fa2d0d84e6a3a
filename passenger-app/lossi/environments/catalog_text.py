"""Changing a catalogue file: one value is put in, all else stays as it is, comments and formatting included.

The change is made in the text, and the result is accepted only if it reads as the old content plus the change; otherwise the file
is written anew from its data. One writer at a time, beside and renamed.
"""

from __future__ import annotations

import copy
import fcntl
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lossi.errors import InvalidInput
from lossi.files import atomic, document

Change = tuple[tuple[str, ...], Any]
"""Keys from the root to a value, and the value that is to stand there."""

_PLAIN = re.compile(r"sha256:[0-9a-f]{64}|[A-Za-z.]*/[A-Za-z0-9/._+-]*(?::[A-Za-z0-9/._+-]+)*")


def change(path: Path, changes: Callable[[dict[str, Any]], Sequence[Change]], *, mode: int) -> None:
    """Change a catalogue file; it is made where it does not exist.

    Parameters
    ----------
    path
        The file.
    changes
        Given what the file says now, what is to be put in; it may refuse by raising.
    mode
        Permissions of a new file; one that exists keeps its own.

    Raises
    ------
    InvalidInput
        When the file is broken; it is left as it is.
    Unavailable, Forbidden
        When it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.explained(error, path) from error
    with _locked(path.parent / ".catalog.lock"):
        old, mode = _content(path, mode)
        data = _data(path, old)
        atomic.write(path, changed(old, data, changes(data)), mode=mode)
        path.chmod(mode)  # also where the umask takes some of it away


def changed(old: bytes, data: dict[str, Any], changes: Sequence[Change]) -> bytes:
    """Return a file's new content.

    Parameters
    ----------
    old, data
        What it holds, and what that says.
    changes
        What is put in, in this order.
    """
    text, wanted = old, data
    for keys, value in changes:
        wanted = _with(wanted, keys, value)
        new = _put(text, keys, value)
        text = new if new is not None and _reads_as(new, wanted) else _yaml(wanted)
    return text


def _data(path: Path, old: bytes) -> dict[str, Any]:
    try:
        data = document.parse(old).data
    except document.Unreadable as error:
        place = f" on line {error.line}" if error.line else ""
        raise InvalidInput(
            f"the catalogue {path} {error.message}{place}", hint="correct it first; it was left as it is"
        ) from None
    data = {} if data is None else data
    if not isinstance(data, dict) or not isinstance(data.get("environments") or {}, dict):
        raise InvalidInput(
            f"the catalogue {path} is not a mapping of `environments`", hint="correct it first; it was left as it is"
        )
    return data


class _locked:  # noqa: N801
    """One writer of a catalogue at a time: two `lossi env add` at once keep both entries."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        try:
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise atomic.explained(error, self.path) from error
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def _content(path: Path, mode: int) -> tuple[bytes, int]:
    """Return a file's content and permissions."""
    try:
        with path.open("rb") as stream:
            return stream.read(), os.fstat(stream.fileno()).st_mode & 0o777
    except FileNotFoundError:
        return b"", mode
    except OSError as error:
        raise InvalidInput(f"cannot read {path}", why=error.strerror or "", hint="check its permissions") from None


def _with(data: dict[str, Any], keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return the data with a value at ``keys``; what is there already and no mapping is replaced."""
    result = copy.copy(data)
    if len(keys) == 1:
        result[keys[0]] = value
    else:
        below = result.get(keys[0])
        result[keys[0]] = _with(below if isinstance(below, dict) else {}, keys[1:], value)
    return result


def _reads_as(text: bytes, wanted: dict[str, Any]) -> bool:
    try:
        return bool(document.parse(text).data == wanted)
    except document.Unreadable:
        return False


def _yaml(data: Any) -> bytes:
    import yaml

    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120)).encode()


def _put(old: bytes, keys: tuple[str, ...], value: Any) -> bytes | None:
    """Return ``old`` with a value put in as text, or None where it has no place for that."""
    import yaml

    text = old.decode("utf-8-sig")
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    left = list(keys)
    if node is None:
        head = text if not text or text.endswith("\n") else text + "\n"
        return head.encode() + _yaml(_nested(left, value))
    while left and isinstance(node, yaml.MappingNode):
        below = next((child for key, child in node.value if key.value == left[0]), None)
        if below is None:
            return _inserted(text, node, left, value, root=len(left) == len(keys))
        node = below
        left.pop(0)
    if (
        left
        or not isinstance(node, yaml.ScalarNode)
        or not isinstance(value, str)
        or node.start_mark.index == node.end_mark.index
    ):
        return None
    return (text[: node.start_mark.index] + _scalar(value) + text[node.end_mark.index :]).encode()


def _inserted(text: str, mapping: Any, keys: list[str], value: Any, *, root: bool) -> bytes | None:
    """Return the text with keys after the last ones of a mapping."""
    if mapping.flow_style:
        inner = json.dumps(_nested(keys, value), ensure_ascii=False)[1:-1]
        at = mapping.end_mark.index - 1
        return (text[:at] + (", " if mapping.value else "") + inner + text[at:]).encode()
    if root:
        return (text if text.endswith("\n") else text + "\n").encode() + _yaml(_nested(keys, value))
    if not mapping.value:
        return None
    indent = " " * mapping.value[0][0].start_mark.column
    lines = text.splitlines(keepends=True)
    at = _last_line(mapping) + 1
    if at > len(lines) or not lines[at - 1].endswith("\n"):
        lines.append("\n")
        at = len(lines)
    block = "".join(f"{indent}{line}\n" for line in _yaml(_nested(keys, value)).decode().splitlines())
    return "".join([*lines[:at], block, *lines[at:]]).encode()


def _nested(keys: Sequence[str], value: Any) -> Any:
    for key in reversed(keys):
        value = {key: value}
    return value


def _scalar(value: str) -> str:
    """Return a text as it may stand anywhere in YAML: as it is where that is plain beyond doubt, otherwise in quotes."""
    return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)


def _last_line(node: Any) -> int:
    """Return the 0-based line on which the last scalar below ``node`` ends."""
    if isinstance(node.value, str):
        end = node.end_mark
        return int(end.line if end.column else max(end.line - 1, node.start_mark.line))
    children = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
    return max([int(node.start_mark.line), *(_last_line(child) for child in children)])
