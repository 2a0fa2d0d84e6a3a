"""The newest jobs of all projects, even if one of the projects is broken."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from lossi import projects
from lossi.jobs.state.recent import MOST_PROJECTS
from lossi.projects import index


def remember(project: projects.Project, job_id: str, created: str, state: str = "succeeded", runs: int = 0, **more: Any) -> None:
    """Put a job into a project's index, as refreshing it does."""
    row = {
        "name": f"job {job_id}",
        "kind": "notebook",
        "experiment": "e",
        "environment": "python",
        "user": "me",
        "tasks": 2,
        **more,
    }
    row |= {"id": job_id, "created": created, "state": state, "counts": json.dumps({state: row["tasks"]})}
    with index.writing(project) as connection:
        connection.execute(f"INSERT INTO jobs ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
        for number in range(runs):
            connection.execute("INSERT INTO task_runs VALUES (?, ?, ?, 0)", (f"{job_id}-{number}", job_id, number))


def test_newest_jobs_of_all_projects_come_first_with_their_pages(
    client: FlaskClient, project: projects.Project, tmp_path: Path
) -> None:
    other = projects.init(tmp_path / "other & more")
    remember(project, "01a", "2026-01-01T10:00:00+00:00", runs=2)
    remember(project, "01c", "2026-01-03T10:00:00+00:00", "queued", reason="Resources")
    remember(other, "01b", "2026-01-02T10:00:00+00:00", "failed", reason="it ran out of memory")
    answer = client.get("/api/v1/recent").get_json()
    assert answer["projects"] == 2
    assert [(job["id"], job["project_name"], job["active"], job["done"], job["runs"]) for job in answer["items"]] == [
        ("01c", "digits", True, 0, 0),
        ("01b", "other & more", False, 2, 0),
        ("01a", "digits", False, 2, 2),
    ]
    assert answer["items"][0]["why"] != "Resources" and answer["items"][1]["why"] == "it ran out of memory"
    page = answer["items"][1]["page"]
    assert page.startswith("/jobs/01b?project=/") and "other%20%26%20more" in page.replace("+", "%20")
    assert [job["id"] for job in client.get("/api/v1/recent?limit=1").get_json()["items"]] == ["01c"]


def test_without_projects_or_jobs_the_list_is_empty(client: FlaskClient) -> None:
    assert client.get("/api/v1/recent").get_json() == {"items": [], "projects": 1}


def test_broken_index_does_not_hide_other_projects(client: FlaskClient, project: projects.Project, tmp_path: Path) -> None:
    broken = projects.init(tmp_path / "broken")
    broken.index.write_bytes(b"this is no database" * 1000)
    remember(project, "01a", "2026-01-01T10:00:00+00:00", "running")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    answer = client.get("/api/v1/recent")
    assert (answer.status_code, [job["id"] for job in answer.get_json()["items"]]) == (200, ["01a"])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_only_the_most_recent_projects_are_read(client: FlaskClient, project: projects.Project, tmp_path: Path) -> None:
    remember(project, "00", "2026-02-01T10:00:00+00:00")
    os.utime(project.index, (1, 1))
    for number in range(MOST_PROJECTS):
        remember(projects.init(tmp_path / f"p{number}"), f"1{number:02}", f"2026-01-{number + 1:02}T10:00:00+00:00")
    answer = client.get("/api/v1/recent?limit=20").get_json()
    assert answer["projects"] == MOST_PROJECTS + 1
    assert len(answer["items"]) == MOST_PROJECTS and "00" not in {job["id"] for job in answer["items"]}


def test_a_limit_out_of_range_is_refused(client: FlaskClient) -> None:
    assert client.get("/api/v1/recent?limit=21").status_code in (400, 422)
