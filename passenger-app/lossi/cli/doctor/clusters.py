"""The doctor's checks of clusters: whether each answers, and has what the site file offers."""

from __future__ import annotations

from collections.abc import Iterator

from lossi.cli.doctor.finding import Finding, failed
from lossi.errors import LossiError


def findings() -> Iterator[Finding]:
    """Check each cluster of this user; asks the scheduler a few short questions, each with a deadline."""
    from lossi import clusters
    from lossi.jobs import schedulers

    known = clusters.load()
    for problem in known.problems:
        level = "ok" if problem.level == "note" else "error"
        yield Finding("clusters", level, str(problem), problem.hint and "correct that entry")
    if not known.clusters and not known.problems:
        yield Finding("clusters", "ok", "none is configured, and sbatch is not on PATH")
    for cluster in known.clusters:
        name = f"cluster {cluster.name}"
        try:
            for check in schedulers.check_cluster(cluster):
                yield Finding(f"{name}: {check.topic}" if check.topic else name, check.level, check.detail, check.hint)
        except LossiError as error:
            yield failed(name, error, "check whether its daemons run, then try again")
