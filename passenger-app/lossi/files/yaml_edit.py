"""Change values in a YAML file and keep everything else as it is, comments and formatting included.

ruamel.yaml makes the change; the result is written only if it reads as the old content plus the change. Loaded on first use, because
only commands that edit a catalogue need it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lossi.errors import InvalidInput
from lossi.files import atomic, document

Change = tuple[tuple[str, ...], Any]
"""Keys from the root to a value, and the new value."""


class NotEditable(Exception):
    """The change cannot be made without changing something else; the message says where."""


def edit_file(path: Path, changes: Callable[[dict[str, Any]], Sequence[Change]], *, mode: int) -> None:
    """Change a file, or create it.

    Parameters
    ----------
    path
        The file.
    changes
        Gets the file's data, returns the changes; may raise to refuse.
    mode
        Permissions of a new file; an existing file keeps its own.

    Raises
    ------
    InvalidInput
        When the file is not valid or the change would affect other values; the file stays as it is.
    Unavailable, Forbidden
        When it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.explained(error, path) from error
    with atomic.locked(path.parent / f".{path.stem}.lock"):
        old, mode = _content(path, mode)
        try:
            data = document.parse(old).data
        except document.Unreadable as error:
            place = f" on line {error.line}" if error.line else ""
            raise InvalidInput(f"{path} {error.message}{place}", hint="correct it first; it was not changed") from None
        if data is not None and not isinstance(data, dict):
            raise InvalidInput(f"{path} is not a mapping", hint="correct it first; it was not changed")
        edits = changes(data or {})
        try:
            new = edited(old, edits)
        except NotEditable as error:
            keys = ".".join(edits[0][0])
            raise InvalidInput(f"cannot change {path}", why=str(error), hint=f"set {keys} by hand") from None
        atomic.write(path, new, mode=mode)
        path.chmod(mode)  # the umask may have removed permissions


def edited(old: bytes, changes: Sequence[Change]) -> bytes:
    """Return a file's content after the changes, made in this order.

    Raises
    ------
    NotEditable
        When the result would differ in more than the changes.
    """
    text = old.decode("utf-8-sig").replace("\r\n", "\n")
    expected = document.parse(old).data or {}
    for keys, value in changes:
        expected = _with(expected, keys, value)
    new = _round_trip(text, changes).encode()
    try:
        same = document.parse(new).data == expected
    except document.Unreadable:
        same = False
    if not same:
        raise NotEditable("other values would change too, for example because of an alias")
    return new.replace(b"\n", b"\r\n") if b"\r\n" in old else new


def _content(path: Path, mode: int) -> tuple[bytes, int]:
    """Return a file's content and permissions."""
    try:
        with path.open("rb") as stream:
            return stream.read(), os.fstat(stream.fileno()).st_mode & 0o777
    except FileNotFoundError:
        return b"", mode
    except OSError as error:
        raise InvalidInput(f"cannot read {path}", why=error.strerror or "", hint="check its permissions") from None


def _with(data: Mapping[str, Any], keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return the data with a value at ``keys``."""
    result = dict(data)
    below = result.get(keys[0])
    if len(keys) > 1 and not isinstance(below, dict | None):
        raise NotEditable(f"{keys[0]} is not a mapping")
    result[keys[0]] = value if len(keys) == 1 else _with(below or {}, keys[1:], value)
    return result


def _round_trip(text: str, changes: Sequence[Change]) -> str:
    import io

    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.error import YAMLError
    from ruamel.yaml.resolver import VersionedResolver

    class AsWritten(VersionedResolver):  # type: ignore[misc]
        """Keeps every plain scalar as text, so that ``1.50``, ``no`` and ``~`` are written as they were."""

        versioned_resolver = {"": [("tag:yaml.org,2002:null", re.compile("^$"))]}  # noqa: RUF012

    yaml = YAML()
    yaml.Resolver = AsWritten
    yaml.preserve_quotes = True
    yaml.width = 1_000_000
    yaml.explicit_start = text.startswith("---")
    try:
        root = yaml.load(text)
    except YAMLError as error:  # YAML that PyYAML reads and ruamel.yaml does not
        raise NotEditable(str(error).splitlines()[0]) from None
    head = ""
    if root is None:  # ruamel.yaml drops the comments of an empty document
        head = text if not text or text.endswith("\n") else f"{text}\n"
        root, yaml.explicit_start = CommentedMap(), False
    mapping, sequence, offset = _indentation(root)
    yaml.indent(mapping=mapping, sequence=sequence, offset=offset)
    for keys, value in changes:
        _set(root, keys, value)
    output = io.StringIO()
    yaml.dump(root, output)
    return head + output.getvalue()


def _set(node: Any, keys: tuple[str, ...], value: Any) -> None:
    """Set a value below a mapping. Comments behind the mapping's last entry belong to what follows it and stay there."""
    key, *below = keys
    if below and node.get(key):
        return _set(node[key], tuple(below), value)
    for name in reversed(below):
        value = {name: value}
    if not node:
        node.fa.set_block_style()
    tail = ""
    if node and (key not in node or isinstance(node[key], dict | list)):
        tail = _take_tail(node, key if key in node else list(node)[-1])
    node[key if key in node else _scalar(key)] = _node(value)
    if tail:
        _append_tail(node, key, tail)


def _node(value: Any) -> Any:
    """Return plain data as ruamel.yaml's nodes, which can carry comments."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if isinstance(value, Mapping):
        return CommentedMap((_scalar(str(key)), _node(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return CommentedSeq(_node(item) for item in value)
    return None if value is None else _scalar(value)


def _scalar(value: Any) -> str:
    """Return a value as it is written: a string in quotes if it would be read as something else."""
    import yaml
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if not isinstance(value, str):
        return str(yaml.safe_dump(value)).split("\n", 1)[0]
    try:  # in braces, where fewer strings need no quotes than in a line of their own
        plain = value.isprintable() and document.parse(f"{{a: {value}}}".encode()).data == {"a": value}
    except (document.Unreadable, UnicodeEncodeError):
        plain = False
    return value if plain else DoubleQuotedScalarString(value)


def _last_leaf(node: Any, key: Any) -> tuple[Any, Any, int]:
    """Return the collection with the last value at or below ``node[key]``, its key there, and where its comment is kept."""
    while _is_block(child := node[key]):
        node, key = child, list(child)[-1] if isinstance(child, dict) else len(child) - 1
    return node, key, 2 if isinstance(node, dict) else 0


def _take_tail(node: Any, key: Any) -> str:
    """Remove and return the comment lines after the last value at ``node[key]`` that do not belong to ``node``."""
    leaf, last, slot = _last_leaf(node, key)
    tokens = leaf.ca.items.get(last)
    if not tokens or not tokens[slot]:
        return ""
    first, *lines = tokens[slot].value.split("\n")
    own = 0
    while own < len(lines) and lines[own].strip() and len(lines[own]) - len(lines[own].lstrip()) >= node.lc.col:
        own += 1
    tokens[slot].value = "\n".join([first, *lines[:own], ""])
    return "\n".join(["", *lines[own:]]).rstrip(" ") if any(lines[own:]) or len(lines) > own + 1 else ""


def _append_tail(node: Any, key: Any, tail: str) -> None:
    from ruamel.yaml.error import CommentMark
    from ruamel.yaml.tokens import CommentToken

    leaf, last, slot = _last_leaf(node, key)
    leaf.ca.items.setdefault(last, [None, None, None, None])[slot] = CommentToken(tail, CommentMark(0), None)


def _is_block(node: Any) -> bool:
    """Return whether a node is a mapping or sequence with an entry per line."""
    return isinstance(node, dict | list) and bool(node) and not node.fa.flow_style()  # type: ignore[union-attr]


def _indentation(root: Any) -> tuple[int, int, int]:
    """Return the indentation of mappings and of sequence items, and the column of a sequence's dash."""
    mapping, sequence = 0, None
    nodes = [root]
    for node in nodes:
        for child in node.values() if isinstance(node, dict) else node:
            if not _is_block(child):
                continue
            nodes.append(child)
            indent = child.lc.col - node.lc.col
            if isinstance(child, list) and isinstance(node, dict):
                sequence = indent if sequence is None else sequence
            elif isinstance(node, dict):
                mapping = mapping or indent
    offset = sequence or 0
    return mapping or 2, offset + 2, offset
