"""Read YAML with limits and with the line number of each key.

Only YAML's safe tags are accepted. Nesting and the size after expanding aliases are limited before anything is built, so that a
hostile file (alias bomb, deep nesting, a FIFO, a huge file) costs milliseconds and no memory.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossi import units

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_NODES = 20_000
"""Scalars, lists and mappings together; each use of an alias counts with everything below it."""
MAX_SCALAR = 40_000

KeyPath = tuple[str | int, ...]


class Unreadable(Exception):
    """The file cannot be read, breaks a limit or is not valid YAML."""

    def __init__(self, message: str, line: int | None = None, *, key: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.key = key
        self.hint = hint


@dataclass(frozen=True)
class Document:
    """Plain data, and the 1-based line of each key and list item by its path."""

    data: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int:
        """Return the line of ``path``, or of its nearest existing parent."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 1


def read(path: Path) -> Document | None:
    """Return the document in ``path``, or None when there is no such file.

    Raises
    ------
    Unreadable
        When it cannot be read, is not a regular file, breaks a limit or is not valid YAML.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}", hint="check its permissions") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unreadable("is not a regular file", hint="it must be a YAML file")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}", hint="check its permissions") from None
    finally:
        os.close(descriptor)
    return parse(content)


def parse(content: bytes) -> Document:
    """Return the document in ``content``.

    Raises
    ------
    Unreadable
        When it breaks a limit or is not valid YAML.
    """
    import yaml

    if len(content) > MAX_BYTES:
        raise Unreadable(f"is larger than {units.humanize_size(MAX_BYTES)}", hint="a few lines for each entry are enough")
    try:
        text = content.decode("utf-8-sig")
        _check_nesting(text)
        loader = _loader()(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return Document(None)
            builder = _Builder(loader)
            return Document(builder.build(root, (), 0), builder.lines)
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise Unreadable("is not UTF-8 text", content[: error.start].count(b"\n") + 1) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Unreadable(f"is not valid YAML: {error.problem or error.context}", mark.line + 1 if mark else None) from None
    except (yaml.YAMLError, ValueError) as error:
        raise Unreadable(f"is not valid YAML: {str(error).splitlines()[0]}") from None


def _line(part: Any) -> int:
    """Return the 1-based line of an event or node."""
    return int(part.start_mark.line) + 1


def _loader() -> Any:
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _check_nesting(text: str) -> None:
    """Refuse deep nesting by walking the events, because composing it would overflow the C stack."""
    import yaml

    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_loader())):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise Unreadable(f"is nested more than {MAX_DEPTH} deep", _line(event))
        if count > 2 * MAX_NODES:
            raise Unreadable(f"has more than {MAX_NODES} entries", _line(event))


class _Builder:
    """Turn nodes into plain data, counting them."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.lines: dict[KeyPath, int] = {}
        self.left = MAX_NODES

    def build(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        import yaml

        self.left -= 1
        if self.left < 0 or depth > MAX_DEPTH:
            raise Unreadable("its aliases (*name) expand to too much", _line(node), hint="write the entries out")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            if node.tag != "tag:yaml.org,2002:seq":
                raise Unreadable(f"the tag {node.tag!r} is not allowed", _line(node))
            return [self._item(item, (*path, index), depth) for index, item in enumerate(node.value)]
        if len(node.value) > MAX_SCALAR:
            raise Unreadable(f"a text is longer than {MAX_SCALAR} characters", _line(node))
        return self.loader.construct_object(node)

    def _item(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        self.lines[path] = _line(node)
        return self.build(node, path, depth + 1)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, Any]:
        import yaml

        if node.tag != "tag:yaml.org,2002:map":
            raise Unreadable(f"the tag {node.tag!r} is not allowed", _line(node))
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = _line(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise Unreadable("a key is not plain text", line)
            # The key as it is written: `1.0:` or `no:` would otherwise become a number or a boolean.
            key = key_node.value
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise Unreadable("merge keys (<<) are not supported", line, hint="write the keys out; aliases as values are fine")
            if key in result:
                dotted = ".".join(str(part) for part in (*path, key))
                raise Unreadable("appears twice", line, key=dotted, hint=f"first on line {self.lines[(*path, key)]}; remove one")
            self.lines[(*path, key)] = line
            result[key] = self.build(value_node, (*path, key), depth + 1)
        return result
