"""One module per command of Slurm: what to start, and how to read what it printed. Pure.

Where a command lets its caller choose, fields are divided by a control character that no field holds and every record ends
with one and a newline: so names may hold any other character, and output that was cut off is seen to be.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, TypeVar

from lossi.clusters import Cluster
from lossi.errors import Unavailable

UNIT = "\x1f"
"""Unit separator of ASCII: after each field."""
MOST_ARGUMENT_BYTES = 60_000
"""Of one word of argv; Linux allows 128 KiB."""

T_co = TypeVar("T_co", covariant=True)


class Unreadable(Unavailable):
    """A command printed something else than it was asked for: cut off, or of a version that differs."""

    def __init__(self, command: str, why: str) -> None:
        super().__init__(f"What {command} printed could not be read", why=why, hint="try again; if it stays so, report it")


class Command(Protocol[T_co]):
    """A command that asks one question."""

    name: ClassVar[str]

    def argv(self, cluster: Cluster) -> list[str]:
        """Return what to start."""
        ...

    def parse(self, text: str) -> T_co:
        """Return what it printed.

        Raises
        ------
        Unreadable
            When that is not what it was asked for.
        """
        ...


def records(command: str, text: str, fields: int) -> list[list[str]]:
    r"""Return the records of text in which each field ends with `UNIT` and each record with a newline after that.

    Raises
    ------
    Unreadable
        When the text does not end with a whole record, or one has another number of fields.
    """
    *whole, rest = text.split(f"{UNIT}\n")
    if rest.strip():
        raise Unreadable(command, "it was cut off")
    found = [record.split(UNIT) for record in whole]
    if any(len(record) != fields for record in found):
        raise Unreadable(command, f"a record has not {fields} fields")
    return found


def bar_lines(command: str, text: str, fields: int) -> list[list[str]]:
    """Return the records of text in which each field ends with ``|`` and each record is a line.

    Raises
    ------
    Unreadable
        As `records`.
    """
    lines = [line for line in text.split("\n") if line]
    if lines and not text.endswith("|\n"):
        raise Unreadable(command, "it was cut off")
    found = [line.split("|")[:-1] for line in lines]
    if any(len(record) != fields for record in found):
        raise Unreadable(command, f"a record has not {fields} fields")
    return found


def without_cluster(text: str) -> str:
    """Return text without the line ``CLUSTER: name`` that some commands print first when they are told a cluster."""
    return text.partition("\n")[2] if text.startswith("CLUSTER: ") else text


def chosen(cluster: Cluster, option: str = "--clusters") -> list[str]:
    """Return the option that names the cluster, where the site says how it is called."""
    return [f"{option}={cluster.slurm_name}"] if cluster.slurm_name else []


def words_within(words: list[str], most: int = MOST_ARGUMENT_BYTES) -> list[list[str]]:
    """Return the words in as few lists as keep each, joined with commas, within so many bytes."""
    found: list[list[str]] = []
    size = most
    for word in words:
        size += len(word) + 1
        if size > most:
            found.append([])
            size = len(word) + 1
        found[-1].append(word)
    return found
