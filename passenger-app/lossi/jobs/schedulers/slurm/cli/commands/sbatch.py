"""sbatch: submits a script, or asks when it would start."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lossi.clusters import Cluster
from lossi.errors import InvalidInput
from lossi.jobs.schedulers.slurm import directives, values
from lossi.jobs.schedulers.slurm.cli.commands import Unreadable, chosen
from lossi.jobs.schedulers.slurm.request import SlurmRequest

_ID = re.compile(r"(\d+)(?:;[^\s;]+)?\n\Z")
_EXPECTED = re.compile(r"Job \d+ to start at (?P<time>\S+) .*")


@dataclass(frozen=True)
class Sbatch:
    """One submission."""

    request: SlurmRequest
    name: ClassVar[str] = "sbatch"

    def argv(self, cluster: Cluster) -> list[str]:
        """Return what to start.

        Raises
        ------
        InvalidInput
            For what sbatch's options cannot express.
        """
        request = self.request
        paths = [f"--chdir={_path(request.directory)}", f"--output={escaped(request.output)}"]
        return [
            cluster.command(self.name),
            "--parsable",
            *chosen(cluster),
            *directives.option_list(request),
            *paths,
            _path(request.script),
        ]

    def parse(self, text: str) -> int:
        """Return Slurm's id of the job.

        Raises
        ------
        Unreadable
            If it printed none.
        """
        # A site's job_submit plug-in or SPANK may print lines before it.
        match = _ID.search(text)
        if match is None or (match.start() and text[match.start() - 1] != "\n"):
            raise Unreadable(self.name, "it did not print the id of a job")
        return int(match[1])


@dataclass(frozen=True)
class SbatchTest:
    """When a job would start if it were submitted now."""

    request: SlurmRequest
    name: ClassVar[str] = "sbatch"

    def argv(self, cluster: Cluster) -> list[str]:
        """Return its argv; a command stands in for the script, which need not exist yet."""
        options = [option for option in directives.option_list(self.request) if not option.startswith("--kill-on-invalid-dep")]
        return [
            cluster.command(self.name),
            "--test-only",
            *chosen(cluster),
            *options,
            "--chdir=/",
            "--output=/dev/null",
            "--wrap=true",
        ]

    def parse(self, text: str) -> tuple[str | None, str]:
        """Return (time, Slurm's message) from stderr.

        Raises
        ------
        Unreadable
            If stderr has neither.
        """
        match = _EXPECTED.search(text)
        if match is None:
            raise Unreadable(self.name, "it did not say when the job would start")
        try:
            return values.utc_time(match["time"]), match[0]
        except ValueError as error:
            raise Unreadable(self.name, str(error)) from error


def escaped(path: Path) -> str:
    """Return a path in which Slurm replaces nothing: ``%`` starts a pattern, ``%%`` is one ``%``.

    Raises
    ------
    InvalidInput
        For a path that sbatch cannot take.
    """
    return _path(path).replace("%", "%%")


def _path(path: Path) -> str:
    text = str(path)
    if "\\" in text or any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise InvalidInput(
            "Slurm cannot run a job in this folder",
            why=f"{text!r} contains a backslash or a control character",
            hint="move the project to a folder with a plain name",
        )
    return text
