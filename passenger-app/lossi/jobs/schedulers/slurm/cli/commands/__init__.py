"""One module per Slurm command: its argv and its parser. Pure.

If a command lets its caller choose, each field ends with a control character that no field contains, and each record with a
newline after it: names may contain any other character, and truncated output is recognised.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, TypeVar

from lossi.clusters import Cluster
from lossi.errors import Unavailable

UNIT = "\x1f"
"""Unit separator of ASCII: after each field."""
MOST_ARGUMENT_BYTES = 60_000
"""Maximum size of one argument; Linux allows 128 KiB."""

T_co = TypeVar("T_co", covariant=True)


class Unreadable(Unavailable):
    """The output of a command cannot be parsed: truncated, or from an unknown version."""

    def __init__(self, command: str, why: str) -> None:
        super().__init__(f"cannot read the output of {command}", why=why, hint="try again; if it happens again, report it")


class Command(Protocol[T_co]):
    """A command and its parser."""

    name: ClassVar[str]

    def argv(self, cluster: Cluster) -> list[str]:
        """Return what to start."""
        ...

    def parse(self, text: str) -> T_co:
        """Return its parsed output.

        Raises
        ------
        Unreadable
            If the output is not as expected.
        """
        ...


def records(command: str, text: str, fields: int) -> list[list[str]]:
    r"""Return the records of text in which each field ends with `UNIT` and each record with a newline after that.

    Raises
    ------
    Unreadable
        If the text is truncated, or a record has another number of fields.
    """
    *whole, rest = text.split(f"{UNIT}\n")
    if rest.strip():
        raise Unreadable(command, "it is truncated")
    split = [record.split(UNIT) for record in whole]
    if any(len(record) != fields for record in split):
        raise Unreadable(command, f"a record does not have {fields} fields")
    return split


def bar_lines(command: str, text: str, fields: int) -> list[list[str]]:
    """Return the records of text in which each field ends with ``|`` and each record is a line.

    Raises
    ------
    Unreadable
        As `records`.
    """
    lines = [line for line in text.split("\n") if line]
    if lines and not text.endswith("|\n"):
        raise Unreadable(command, "it is truncated")
    split = [line.split("|")[:-1] for line in lines]
    if any(len(record) != fields for record in split):
        raise Unreadable(command, f"a record does not have {fields} fields")
    return split


def without_cluster(text: str) -> str:
    """Return text without the line ``CLUSTER: name`` that some commands print first if they are given a cluster."""
    return text.partition("\n")[2] if text.startswith("CLUSTER: ") else text


def chosen(cluster: Cluster, option: str = "--clusters") -> list[str]:
    """Return the option that names the cluster, if the site sets `slurm_name`."""
    return [f"{option}={cluster.slurm_name}"] if cluster.slurm_name else []


def words_within(words: list[str], most: int = MOST_ARGUMENT_BYTES) -> list[list[str]]:
    """Return the words in as few lists as possible, each within a size when joined with commas."""
    chunks: list[list[str]] = []
    size = most
    for word in words:
        size += len(word) + 1
        if size > most:
            chunks.append([])
            size = len(word) + 1
        chunks[-1].append(word)
    return chunks
