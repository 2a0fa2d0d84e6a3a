"""The site file of a test, and what tests of whole jobs ask again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from real_cluster import RealCluster

from lossi.contract.states import has_ended


class Site:
    """Lossi on a cluster as one site has set it up, used by one of its users.

    Parameters
    ----------
    changes
        Members of the cluster in the site file.
    """

    def __init__(self, cluster: RealCluster, user: str | None = None, **changes: Any) -> None:
        self.cluster = cluster
        self.user = user or cluster.users[0]
        self.project = cluster.project(self.user)
        self.file = self.project.parent / f"site-{self.project.name}.yml"
        model = cluster.model(**{"poll_interval_s": 0.5, "exit_grace_s": 3, **changes})
        entry = model.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
        self.file.write_text(yaml.safe_dump({"default_cluster": model.name, "clusters": {model.name: entry}}))
        self.file.chmod(0o644)
        self.env = {"LOSSI_SITE": str(self.file)}
        self.lossi("project", "init")

    def lossi(self, *arguments: str | Path, expect: int | None = 0, user: str | None = None, **environment: str) -> Any:
        """Run the command in the project and return what it says as JSON."""
        env = {**self.env, **environment}
        return self.cluster.lossi(user or self.user, *arguments, project=self.project, env=env, expect=expect)

    def write(self, name: str, text: str) -> Path:
        """Put a file of the user's into the project."""
        path = self.project / name
        path.write_text(text)
        self.cluster.give(path, self.user)
        return path

    def submit(self, *arguments: str | Path, **environment: str) -> Any:
        """Submit and return the job, without watching it."""
        verb = "sweep" if any(word in ("-g", "--grid", "--list") for word in map(str, arguments)) else "run"
        return self.lossi(verb, "--detach", *arguments, **environment)

    def job(self, job_id: str) -> Any:
        return self.lossi("jobs", "show", job_id, "--limit", "1000")["job"]

    def tasks(self, job_id: str) -> list[Any]:
        items: list[Any] = self.lossi("jobs", "show", job_id, "--limit", "1000")["tasks"]["items"]
        return items

    def slurm_id(self, job: Any) -> str:
        return str(job["scheduler_id"])

    def until(self, job_id: str, *states: str) -> Any:
        """Wait until the job is in one of the states and return it."""

        def there() -> Any:
            job = self.job(job_id)
            if job["state"] not in states and has_ended(job["state"]):
                pytest.fail(f"the job is {job['state']}: {job['reason']}\n{self.tasks(job_id)}\n{self.logs(job_id)}")
            return job if job["state"] in states else None

        return self.cluster.wait(there, f"job {job_id} is {' or '.join(states)}")

    def until_accounted(self, job_id: str) -> list[Any]:
        """Wait until nothing will change any more about the tasks of a job, and return them."""

        def settled() -> list[Any] | None:
            tasks = self.tasks(job_id)
            return tasks if all(task["final"] for task in tasks) else None

        return self.cluster.wait(settled, "all is accounted") or []

    def logs(self, job_id: str) -> str:
        folder = self.project / ".lossi" / "jobs" / job_id
        return "\n".join(
            path.read_text("utf-8", "replace")[-2000:] for path in [*folder.glob("tasks/*/log"), *folder.glob("*.log")]
        )
