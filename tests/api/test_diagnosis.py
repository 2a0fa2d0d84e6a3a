"""Why jobs died, over REST."""

from __future__ import annotations

from flask.testing import FlaskClient

from lossi import projects
from lossi.contract import records
from lossi.contract.records import PreparedJob, Resources, SubmissionRecord, TaskExit

JOB = "01kx0000000000000000000000"


def _dead_job(project: projects.Project) -> None:
    """Put the directory of a job whose two tasks ended into the project."""
    directory = project.jobs / JOB
    job = PreparedJob(JOB, "n", "notebook", str(project.root), "ann", "2024-01-01T00:00:00Z", tasks=2)
    job = records.from_dict(PreparedJob, {**records.to_dict(job), "resources": records.to_dict(Resources(memory_mb=1024))})
    for task, state in enumerate(("out_of_memory", "succeeded")):
        folder = directory / records.TASK_FOLDER / str(task)
        folder.mkdir(parents=True)
        left = TaskExit(
            task, state, started="2024-01-01T00:00:00Z", ended="2024-01-01T00:01:00Z", elapsed_s=60.0, max_rss_mb=900.0
        )
        (folder / records.EXIT).write_bytes(records.dump(left))
        (folder / records.LOG).write_text("hello \x1b[31mred\n")
    (directory / records.SPEC).write_bytes(records.dump(job))
    (directory / records.SUBMISSION).write_bytes(records.dump(SubmissionRecord("local", JOB, "2024-01-01T00:00:00Z")))


def test_a_job_and_its_tasks_are_explained(client: FlaskClient, project: projects.Project) -> None:
    _dead_job(project)
    whole = client.get(f"/api/v1/jobs/{JOB}/diagnosis").get_json()
    assert whole["sentence"] == "1 of 2 tasks: memory."
    assert whole["groups"][0]["example"]["changes"] == {"resources": {"memory": "2G"}}
    diagnosis = client.get(f"/api/v1/jobs/{JOB}/tasks/0/diagnosis").get_json()
    assert (diagnosis["kind"], diagnosis["evidence"]["lines"], diagnosis["waiting"]) == ("memory", ["hello red"], None)
    assert client.get(f"/api/v1/jobs/{JOB}/tasks/1/diagnosis").get_json()["kind"] == "none"
    advice = client.get(f"/api/v1/jobs/{JOB}/advice").get_json()
    assert (advice["ended"], advice["changes"]) == (2, {"resources": {"memory": "2G"}})


def test_missing_jobs_are_not_found(client: FlaskClient, project: projects.Project) -> None:
    _dead_job(project)
    for path in ("jobs/zzzzzz/diagnosis", "jobs/zzzzzz/advice", f"jobs/{JOB}/tasks/2/diagnosis"):
        assert client.get(f"/api/v1/{path}").status_code == 404


def test_queue_waits_need_no_project(client: FlaskClient) -> None:
    answer = client.get("/api/v1/queue-waits")
    assert answer.status_code == 200 and answer.get_json()["items"] == []


def test_only_time_and_memory_can_be_raised(client: FlaskClient, project: projects.Project) -> None:
    _dead_job(project)
    assert client.post(f"/api/v1/jobs/{JOB}/resubmit", json={"more": ["gpus"]}).status_code == 422
    answer = client.post(f"/api/v1/jobs/{JOB}/resubmit", json={"more": ["time"]})
    assert answer.status_code == 409 and "ran out of time" in answer.get_json()["detail"]
