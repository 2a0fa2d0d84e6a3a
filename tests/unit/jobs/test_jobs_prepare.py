"""The job directory: what is in it, and that nothing is left behind when it cannot be made."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from direct_scheduler import DirectScheduler
from job_files import directory, files, prepared, rows

from lossi import jobs
from lossi.contract import records
from lossi.contract.records import PreparedJob
from lossi.errors import Forbidden, Unavailable
from lossi.jobs.submit import prepare
from lossi.projects import Project

Spec = Callable[..., Any]

HOSTILE = [
    "'",
    '"',
    "a\nb",
    "$(touch pwned)",
    "`id`",
    "\u0085\u2028",
    "\\",
    "%s",
    "-p",
    "",
    "{lr}",
    "ünï \U0001f409",
    "\0",
    "x" * 1_000_000,
]


def test_a_job_directory_holds_all_that_the_job_needs(project: Project, spec: Spec) -> None:
    job = jobs.submit(
        project, spec(parameters={"lr": 0.5}, name="first", tags={"team": "a"}, resources={"cpus": 2, "memory": "1G"})
    )
    folder = directory(project, job)
    assert files(folder) == ["code.tar", "runner.pyz", "script.sh", "spec.json", "submission.json", "tasks.jsonl", "tracking.db"]
    definition = prepared(project, job)
    assert (definition.kind, definition.source, definition.working_directory, definition.language) == (
        "notebook",
        "train.ipynb",
        ".",
        "python",
    )
    assert (definition.name, definition.tracking.experiment, definition.tags, definition.resources.memory_mb) == (
        "first",
        "train",
        {"team": "a"},
        1024,
    )
    assert definition.tracking.artifact_location == str(project.artifacts / definition.tracking.experiment_id)
    assert definition.environment.python == sys.executable
    assert rows(project, job) == [{"lr": 0.5}]
    with tarfile.open(folder / "code.tar") as archive:
        assert {"train.ipynb", "train.py", "deep/other.ipynb"} <= set(archive.getnames())
    for name, digest in definition.digests.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert set(definition.digests) == {"code.tar", "runner.pyz", "tasks.jsonl", "tracking.db"}
    assert str(folder / "runner.pyz") in (folder / "script.sh").read_text()


def test_the_directory_belongs_to_its_submitter_and_the_group_may_read(project: Project, spec: Spec) -> None:
    old = os.umask(0o077)
    try:
        folder = directory(project, jobs.submit(project, spec()))
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) & 0o777 == 0o750
    assert stat.S_IMODE((folder / "script.sh").stat().st_mode) == 0o750
    for name in ("spec.json", "tasks.jsonl", "code.tar", "runner.pyz", "tracking.db"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o640, name


def test_ten_thousand_combinations_are_one_submission_of_a_few_files(
    project: Project, spec: Spec, direct: DirectScheduler
) -> None:
    job = jobs.submit(project, spec(sweep={"grid": {"depth": list(range(100)), "lr": [n / 100 for n in range(100)]}}))
    folder = directory(project, job)
    assert job.tasks == 10_000
    assert len(files(folder)) <= 10
    assert list((folder / "tasks").iterdir()) == []
    assert len(rows(project, job)) == 10_000
    assert rows(project, job)[101] == {"depth": 1, "lr": 0.01}
    assert len(direct.submissions()) == 1


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: ascii(value)[:12])
def test_any_value_arrives_unchanged_and_stays_out_of_script_and_argv(project: Project, spec: Spec, value: str) -> None:
    job = jobs.submit(project, spec(parameters={"name": value}))
    assert rows(project, job) == [{"name": value}]
    script = (directory(project, job) / "script.sh").read_text()
    assert len(value) < 6 or value not in script
    assert len(script) < 20_000
    shown = jobs.task(project, job.id, 0)
    assert shown.parameters == {"name": value}
    page = jobs.tasks(project, job.id)
    assert page.items[0].shortened == (["name"] if len(value) > 10_000 else [])
    assert json.loads(page.model_dump_json())["items"][0]["parameters"]["name"][:100] == value[:100]


def test_nan_and_infinities_arrive_and_are_shown_as_words(project: Project, spec: Spec) -> None:
    job = jobs.submit(
        project, spec(sweep={"list": [{"lr": float("nan")}, {"lr": float("inf")}, {"lr": float("-inf")}, {"lr": 1}]})
    )
    assert [repr(row["lr"]) for row in rows(project, job)] == ["nan", "inf", "-inf", "1.0"]
    page = json.loads(jobs.tasks(project, job.id).model_dump_json())
    assert [item["parameters"]["lr"] for item in page["items"]] == ["NaN", "Infinity", "-Infinity", 1.0]


def test_a_csv_table_becomes_values_of_the_declared_types(project: Project, spec: Spec) -> None:
    table = "depth,lr,name,flags\n3,1e-3,007,[1]\n4,nan,true,[]\n"
    job = jobs.submit(project, spec(sweep={"csv": table}))
    first, second = rows(project, job)
    assert first == {"depth": 3, "lr": 0.001, "name": "007", "flags": [1]}
    assert (second["depth"], str(second["lr"]), second["name"]) == (4, "nan", "true")
    free = jobs.submit(project, spec(script="train.py", sweep={"csv": "n,w\n3,abc\n"}))
    assert rows(project, free) == [{"n": 3, "w": "abc"}]


def test_a_container_sees_the_job_the_artifacts_and_the_data_read_only(tmp_path: Path) -> None:
    image = "/images/sklearn 1.sif"
    environment = records.ResolvedEnvironment(
        "sklearn", "apptainer", "python3", ["apptainer", "exec", "--contain", image], sif=image
    )
    job = PreparedJob(
        "01aryz6s41tsv4rrffq69g5fav", "n", "notebook", "/p", "me", "", environment=environment,
        code=records.CodeSnapshot(links=[records.DataLink("data", "/p/da ta,1")]),
        tracking=records.TrackingTarget("x", "1", "/p/.lossi/artifacts/1"),
    )  # fmt: skip
    header = prepare._header(job, Path("/p/.lossi/jobs/x"), [])
    assert header.kind == "apptainer"
    assert header.argv == [
        "apptainer", "exec", "--contain", "--bind", "/p/.lossi/jobs/x:/p/.lossi/jobs/x", "--bind", "/p/.lossi/artifacts/1:/p/.lossi/artifacts/1",
        "--mount", 'type=bind,"source=/p/da ta,1","destination=/p/da ta,1",ro', image,
        "python3", "/p/.lossi/jobs/x/runner.pyz", "run", "--job", "/p/.lossi/jobs/x",
    ]  # fmt: skip


@pytest.mark.host("git")
def test_a_notebook_that_git_ignores_is_part_of_the_snapshot(project: Project, spec: Spec) -> None:
    subprocess.run(["git", "init", "-q", str(project.root)], check=True)
    (project.root / ".gitignore").write_text("train.ipynb\n")
    job = jobs.submit(project, spec())
    with tarfile.open(directory(project, job) / "code.tar") as archive:
        assert "train.ipynb" in archive.getnames()


# -- disks -------------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_nothing_half_written(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    """The size of files is limited, which fails in the middle of a write as a full disk does."""
    jobs.submit(project, spec())
    before = sorted(project.jobs.iterdir())
    big = project.root / "big.bin"
    big.write_bytes(os.urandom(2_000_000))
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(Unavailable) as caught:
            jobs.submit(project, spec())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert caught.value.hint
    assert sorted(project.jobs.iterdir()) == before
    assert len(direct.submissions()) == 1
    big.unlink()
    assert jobs.submit(project, spec()).state == "queued"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_leaves_nothing(project: Project, spec: Spec) -> None:
    jobs.submit(project, spec())
    project.jobs.chmod(0o500)
    try:
        with pytest.raises(Forbidden, match="may not write"):
            jobs.submit(project, spec())
    finally:
        project.jobs.chmod(0o750)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="not root: a filesystem cannot be mounted")
@pytest.mark.parametrize(("option", "says"), [("size=900k", "full"), ("ro", "read-only")])
def test_a_full_or_read_only_filesystem_is_the_reason(project: Project, spec: Spec, option: str, says: str) -> None:
    jobs.submit(project, spec())
    options = ["-t", "tmpfs", "-o", option, "tmpfs"]
    if subprocess.run(["mount", *options, str(project.jobs)], capture_output=True).returncode:
        pytest.skip("this machine does not let root mount")
    try:
        (project.root / "big.bin").write_bytes(os.urandom(2_000_000))
        with pytest.raises(Unavailable, match=says):
            jobs.submit(project, spec())
        assert list(project.jobs.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", str(project.jobs)], check=True)


def test_a_half_prepared_directory_is_removed_after_an_hour(project: Project, spec: Spec) -> None:
    fresh, stale = (project.jobs / f".01aryz6s41tsv4rrffq69g5fa{end}.part" for end in "vw")
    for part in (fresh, stale):
        part.mkdir()
        (part / "code.tar").write_bytes(b"x")
    old = time.time() - prepare.STALE_S - 10
    os.utime(stale, (old, old))
    jobs.reconcile(project)
    assert fresh.exists()
    assert not stale.exists()
