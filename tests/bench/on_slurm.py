"""What the measurements on Slurm share: a throw-away cluster of the project's own, and code that runs as an ordinary user."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("", "slurm")]
from real_cluster import OwnCluster, throw_away, why_not_own  # noqa: E402

NOTEBOOK = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    "cells": [
        {
            "cell_type": "code",
            "id": "one",
            "metadata": {"tags": ["parameters"]},
            "source": "x: int = 1",
            "outputs": [],
            "execution_count": None,
        }
    ],
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """A project of an ordinary user on a cluster that nobody else uses."""

    cluster: OwnCluster
    user: str
    project: Path
    environment: dict[str, str]

    @classmethod
    def of(cls, cluster: OwnCluster, user: str, **site: Any) -> Bench:
        """Make a project with a notebook; ``site`` is what the site file says of the cluster, by key of its section."""
        file = cluster.root / "etc" / f"site-{user}.yml"
        file.write_text(json.dumps({"clusters": {"ci": site}}))
        file.chmod(0o644)
        project = cluster.project(user)
        (project / "one.ipynb").write_text(json.dumps(NOTEBOOK))
        cluster.give(project / "one.ipynb", user)
        bench = cls(cluster, user, project, {"LOSSI_SITE": str(file)})
        bench.lossi("project", "init", ".")
        return bench

    def lossi(self, *words: str) -> Any:
        """Run the command and return its JSON."""
        return self.cluster.lossi(self.user, *words, project=self.project, env=self.environment)

    def python(self, code: str, *words: str, timeout: float = 900) -> Any:
        """Run code as the user, with the installed Lossi, and return the JSON that it prints."""
        argv = [self.cluster.installation.python, "-c", code, *words]
        done = self.cluster.run_as(self.user, argv, cwd=self.project, env=self.environment, timeout=timeout)
        return json.loads(done.stdout)

    def cancel_all(self) -> None:
        """Empty the queue and wait until it is."""
        self.cluster.run_as(self.user, ["scancel", "--me"])
        self.cluster.wait(lambda: not self.queue("%A"), "the queue is empty")

    def queue(self, form: str, *options: str) -> list[str]:
        """Return what squeue says of the user's jobs."""
        return self.cluster.run_as(self.user, ["squeue", "-h", "--me", "-o", form, *options]).stdout.splitlines()


def requests(cluster: OwnCluster, heading: str) -> dict[str, int]:
    """Return how many requests slurmctld has had since it started, by type of message or by user (``heading``: message type, user)."""
    statistics = cluster.run_as("root", ["sdiag"]).stdout
    part = statistics.partition(f"Remote Procedure Call statistics by {heading}")[2].partition("\n\n")[0]
    lines = [line.split() for line in part.splitlines() if "count:" in line]
    return {words[0]: int(next(word for word in words if word.startswith("count:"))[6:]) for words in lines}


def measured(doc: str | None, measure: Callable[..., list[Row]], *options: tuple[str, type, Any, str]) -> None:
    """Write the rows of a measurement, or none and a plain line where no cluster can be had.

    Parameters
    ----------
    doc
        What the script says of itself.
    measure
        Returns the rows; it is given the options by name.
    options
        Name, type, default and explanation of each.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--json", type=Path, required=True)
    for name, kind, default, explanation in options:
        parser.add_argument(f"--{name}", type=kind, default=default, help=explanation)
    arguments = vars(parser.parse_args())
    answer = arguments.pop("json")
    reason = why_not_own()
    if reason:
        print(f"  not measured here: {reason}")
    answer.write_text(json.dumps([] if reason else measure(**arguments), ensure_ascii=False))


@contextlib.contextmanager
def cluster(*, users: tuple[str, ...] | None = None, **settings: str) -> Iterator[OwnCluster]:
    """Start the cluster and install Lossi."""
    with throw_away(**({"users": users} if users else {}), **settings) as started:
        _ = started.installation
        yield started
