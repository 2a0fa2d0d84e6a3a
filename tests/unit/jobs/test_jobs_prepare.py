"""From a request to a job directory: what is refused, what is in it, and that nothing is left behind when it cannot be made."""

from __future__ import annotations

import json
import os
import resource
import shutil
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
from job_notebooks import notebook

from lossi import jobs
from lossi.contract import records
from lossi.contract.records import PreparedJob
from lossi.errors import Forbidden, InvalidInput, LossiError, NotFound, NotSupported, Unavailable
from lossi.jobs.schedulers import Capabilities
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


def directory(project: Project, job: Any) -> Path:
    return project.jobs / job.id


def prepared(project: Project, job: Any) -> PreparedJob:
    return records.load(PreparedJob, directory(project, job) / records.SPEC)


def rows(project: Project, job: Any) -> list[dict[str, Any]]:
    return list(prepare.read_rows(directory(project, job)))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


# -- what is in it -----------------------------------------------------------------------------------------------------


def test_a_job_directory_holds_all_that_the_job_needs(project: Project, spec: Spec) -> None:
    job = jobs.submit(
        project, spec(parameters={"lr": 0.5}, name="first", tags={"team": "a"}, resources={"cpus": 2, "memory": "1G"})
    )
    folder = directory(project, job)
    assert files(folder) == ["code.tar", "runner.pyz", "script.sh", "spec.json", "submission.json", "tasks.jsonl", "tracking.db"]
    made = prepared(project, job)
    assert (made.kind, made.source, made.working_directory, made.language) == ("notebook", "train.ipynb", ".", "python")
    assert (made.name, made.tracking.experiment, made.tags, made.resources.memory_mb) == ("first", "train", {"team": "a"}, 1024)
    assert made.tracking.artifact_location == str(project.artifacts / made.tracking.experiment_id)
    assert made.environment.python == sys.executable
    assert rows(project, job) == [{"lr": 0.5}]
    with tarfile.open(folder / "code.tar") as archive:
        assert {"train.ipynb", "train.py", "deep/other.ipynb"} <= set(archive.getnames())
    for name, digest in made.digests.items():
        import hashlib

        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert set(made.digests) == {"code.tar", "runner.pyz", "tasks.jsonl", "tracking.db"}
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
    jobs.submit(project, spec())  # the store is made once
    job = jobs.submit(project, spec(sweep={"grid": {"depth": list(range(100)), "lr": [n / 100 for n in range(100)]}}))
    folder = directory(project, job)
    assert job.tasks == 10_000
    assert len(files(folder)) <= 10
    assert list((folder / "tasks").iterdir()) == []
    assert len(rows(project, job)) == 10_000
    assert rows(project, job)[101] == {"depth": 1, "lr": 0.01}
    assert direct.submissions() == sorted([*direct.submissions()])


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: ascii(value)[:12])
def test_any_value_arrives_as_it_was_and_stays_out_of_script_and_argv(project: Project, spec: Spec, value: str) -> None:
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


def test_numbers_that_json_does_not_know_arrive_and_are_shown_as_words(project: Project, spec: Spec) -> None:
    job = jobs.submit(
        project, spec(sweep={"list": [{"lr": float("nan")}, {"lr": float("inf")}, {"lr": float("-inf")}, {"lr": 1}]})
    )
    assert [repr(row["lr"]) for row in rows(project, job)] == ["nan", "inf", "-inf", "1.0"]
    page = json.loads(jobs.tasks(project, job.id).model_dump_json())
    assert [item["parameters"]["lr"] for item in page["items"]] == ["NaN", "Infinity", "-Infinity", 1.0]


def test_half_a_character_is_refused(project: Project, spec: Spec) -> None:
    with pytest.raises(InvalidInput, match="lone surrogate"):
        jobs.submit(project, spec(parameters={"name": "\ud800"}))


def test_the_notebooks_folder_is_the_working_directory_and_its_name_the_experiment(project: Project, spec: Spec) -> None:
    made = prepared(project, jobs.submit(project, spec(notebook="deep/other.ipynb")))
    assert (made.source, made.working_directory, made.name, made.tracking.experiment) == (
        "deep/other.ipynb",
        "deep",
        "other",
        "other",
    )


def test_scripts_and_commands(project: Project, spec: Spec) -> None:
    script = prepared(project, jobs.submit(project, spec(script="train.py", arguments=["--fast"], parameters={"lr": 1})))
    assert (script.kind, script.source, script.command, script.language) == ("script", "train.py", ["--fast"], "python")
    command = prepared(
        project,
        jobs.submit(project, spec(command=["./sim", "{steps}"], working_directory="deep", parameters={"steps": 3, "a b": 1})),
    )
    assert (command.kind, command.source, command.command, command.working_directory) == (
        "command",
        None,
        ["./sim", "{steps}"],
        "deep",
    )
    assert command.tracking.experiment == "sim"


def test_a_table_of_texts_becomes_values_of_the_declared_types(project: Project, spec: Spec) -> None:
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
def test_a_notebook_that_git_ignores_still_travels(project: Project, spec: Spec) -> None:
    subprocess.run(["git", "init", "-q", str(project.root)], check=True)
    (project.root / ".gitignore").write_text("train.ipynb\n")
    job = jobs.submit(project, spec())
    with tarfile.open(directory(project, job) / "code.tar") as archive:
        assert "train.ipynb" in archive.getnames()


def test_snapshots_are_published_less_often_the_more_tasks_run_at_once(project: Project, spec: Spec) -> None:
    from lossi.jobs.submit.plan import publish_interval

    assert [publish_interval(number) for number in (1, 50, 525, 1000, 9999)] == [10, 10, 35, 60, 60]
    sweep = {"grid": {"depth": list(range(1000))}}
    assert prepared(project, jobs.submit(project, spec(sweep=sweep))).tracking.publish_interval_s == 60
    assert prepared(project, jobs.submit(project, spec(sweep=sweep, max_parallel=4))).tracking.publish_interval_s == 10


def test_a_tracking_server_is_taken_from_the_environment_but_never_with_a_password(
    project: Project, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org/x")
    assert jobs.preview(project, spec()).job.tracking.server_uri == "https://mlflow.example.org/x"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:s3cret@mlflow.example.org")
    with pytest.raises(InvalidInput, match="password") as caught:
        jobs.submit(project, spec())
    assert "s3cret" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////somewhere")
    assert jobs.preview(project, spec()).job.tracking.server_uri is None


# -- preview -----------------------------------------------------------------------------------------------------------


def test_a_preview_shows_what_a_submission_would_do_and_leaves_nothing(
    project: Project, spec: Spec, direct: DirectScheduler
) -> None:
    direct.lines = ["#DIRECT --here"]
    before = sorted(project.home.rglob("*"))
    shown = jobs.preview(project, spec(sweep={"grid": {"depth": list(range(50))}}, parameters={"lr": float("nan")}))
    assert sorted(project.home.rglob("*")) == before
    assert shown.total == 50
    assert shown.tasks[:2] == [{"lr": "NaN", "depth": 0}, {"lr": "NaN", "depth": 1}]
    assert len(shown.tasks) == 20
    assert shown.script.splitlines()[1] == "#DIRECT --here"
    assert shown.argv[0] == "/bin/sh"
    json.loads(json.dumps(shown.model_dump(mode="json"), allow_nan=False))


def test_what_will_not_be_as_expected_is_warned_of(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    direct.capabilities = Capabilities(time_limits=False, memory_limits=False)
    warnings = " | ".join(
        jobs.preview(project, spec(resources={"partition": "gpu", "time": "2h", "memory": "1G"}, environment=None)).warnings
    )
    for words in (
        "partition 'gpu' means nothing",
        "time limit 02:00:00",
        "memory limit of 1024 MiB",
        "no environment was named: python",
    ):
        assert words in warnings


# -- what is refused ---------------------------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], type[LossiError], str, str]] = [
    ({"environment": "pyhton"}, NotFound, "pyhton", "did you mean 'python'"),
    ({"notebook": "tarin.ipynb"}, NotFound, "tarin.ipynb", "did you mean 'train.ipynb'"),
    ({"notebook": "../outside.ipynb"}, Forbidden, "outside of the project", ""),
    ({"notebook": "link.ipynb"}, Forbidden, "outside of the project", ""),
    ({"notebook": "/etc/passwd"}, Forbidden, "outside of the project", ""),
    ({"notebook": "deep"}, InvalidInput, "not a file", ""),
    ({"notebook": "train.py"}, InvalidInput, "not valid JSON", ""),
    ({"notebook": "julia.ipynb"}, NotSupported, "Julia", ""),
    ({"script": "train.ipynb"}, InvalidInput, "no script", "submit it as a notebook"),
    ({"script": "data.csv"}, InvalidInput, "no script", ".py or .R"),
    ({"command": ["x"], "working_directory": ".."}, Forbidden, "outside of the project", ""),
    ({"command": ["x"], "working_directory": "nowhere"}, NotFound, "no folder", ""),
    ({"parameters": {"deepth": 1}}, InvalidInput, "deepth", "did you mean 'depth'"),
    ({"parameters": {"depth": "three"}}, InvalidInput, "depth", ""),
    ({"parameters": {"a-b": 1}}, InvalidInput, "a-b", ""),
    ({"notebook": "untagged.ipynb", "parameters": {"lr": 1}}, InvalidInput, "takes no parameters", "tag"),
    ({"sweep": {"grid": {"width": [1]}}}, InvalidInput, "task 0 of the sweep.*width", ""),
    ({"sweep": {"grid": {"depth": [1, 2, "x"]}}}, InvalidInput, "task 2 of the sweep.*depth", ""),
    ({"sweep": {"grid": {"lr": [1]}}, "parameters": {"lr": 2}}, InvalidInput, "both fixed and swept", ""),
    ({"sweep": {"grid": {"depth": list(range(1000)), "lr": list(range(1000))}}}, InvalidInput, "1,000,000 combinations, the limit is 20,000", ""),
    ({"sweep": {"csv": "depth\nx\n"}}, InvalidInput, "task 0 of the sweep.*depth", ""),
    ({"script": "train.py", "parameters": {"a b": 1}}, InvalidInput, "a b", ""),
    ({"command": ["x"], "parameters": {"a=b": 1}}, InvalidInput, "a=b", ""),
    ({"resources": {"gpus": 9}}, InvalidInput, "at most 1 GPUs", ""),
    ({"resources": {"nodes": 2}}, InvalidInput, "at most 1 nodes", ""),
    ({"scheduler": "dierct"}, InvalidInput, "no scheduler 'dierct'", "did you mean 'direct'"),
    ({"experiment": " "}, InvalidInput, "experiment", ""),
]  # fmt: skip


@pytest.mark.parametrize(("data", "kind", "what", "hint"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_run_is_refused_before_anything_is_written(
    project: Project,
    spec: Spec,
    direct: DirectScheduler,
    tmp_path: Path,
    data: dict[str, Any],
    kind: type[LossiError],
    what: str,
    hint: str,
) -> None:
    (tmp_path / "outside.ipynb").write_text(notebook())
    (project.root / "link.ipynb").symlink_to(tmp_path / "outside.ipynb")
    (project.root / "julia.ipynb").write_text(notebook(language="julia"))
    (project.root / "untagged.ipynb").write_text(notebook("print(1)", parameters=None))
    (project.root / "data.csv").write_text("a")
    direct.capabilities = Capabilities(max_gpus=1, max_nodes=1)
    with pytest.raises(kind) as caught:
        jobs.submit(project, spec(**data))
    import re

    assert re.search(what, caught.value.what), caught.value.what
    assert hint in caught.value.hint
    assert caught.value.hint
    assert list(project.jobs.iterdir()) == []
    assert direct.submissions() == []


def test_a_local_python_that_lacks_what_notebooks_need_is_refused(project: Project, spec: Spec, home: Path) -> None:
    from lossi import environments

    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("this machine has no second Python")
    environments.add("bare", title="Bare", python=python)
    with pytest.raises(Unavailable, match="cannot run a notebook") as caught:
        jobs.submit(project, spec(environment="bare"))
    assert "pip install" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_notebook_that_may_not_be_read_is_said_so(project: Project, spec: Spec) -> None:
    (project.root / "train.ipynb").chmod(0)
    with pytest.raises(Forbidden, match="cannot be read"):
        jobs.submit(project, spec())


def test_a_limit_of_the_site_is_said_before_the_sweep_is_expanded(
    project: Project, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSI_MAX_TASKS", "10")
    with pytest.raises(InvalidInput, match="limit is 10 tasks") as caught:
        jobs.submit(project, spec(sweep={"random": {"lr": {"choice": [1]}}, "samples": 10**12}))
    assert caught.value.details["limit"] == 10


# -- disks -------------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_nothing_half_written(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    """The size of files is limited, which fails in the middle of a write as a full disk does."""
    jobs.submit(project, spec())
    before = sorted(project.jobs.iterdir())
    big = project.root / "big.bin"
    big.write_bytes(os.urandom(2_000_000))
    import signal

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
def test_a_small_or_read_only_filesystem_is_named_as_the_reason(project: Project, spec: Spec, option: str, says: str) -> None:
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


def test_what_a_dead_process_left_half_prepared_goes_after_an_hour(project: Project, spec: Spec) -> None:
    fresh, stale = (project.jobs / f".01aryz6s41tsv4rrffq69g5fa{end}.part" for end in "vw")
    for part in (fresh, stale):
        part.mkdir()
        (part / "code.tar").write_bytes(b"x")
    old = time.time() - prepare.STALE_S - 10
    os.utime(stale, (old, old))
    jobs.reconcile(project)
    assert fresh.exists()
    assert not stale.exists()
