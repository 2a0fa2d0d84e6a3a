"""Every template as Open OnDemand starts it: copied as the Job Composer or the Project Manager does, submitted unchanged."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from real_cluster import OwnCluster
from slurm_site import Site

TREE = Path(__file__).resolve().parents[2]
TEMPLATES = sorted(path.parent for path in (TREE / "batch-templates" / "job-composer").glob("*/script.sh"))
STARTER = TREE / "batch-templates" / "project-manager" / "starter"
LAUNCHERS = sorted((STARTER / ".ondemand" / "launchers").glob("*/form.yml"))
SCRIPTS = [*(folder / "script.sh" for folder in TEMPLATES), *sorted(STARTER.glob("*.sh"))]

# A stand-in for PyTorch, which is too large for a test: it connects to the other node as torchrun does and logs one run.
MEETING = """
import argparse, os, socket, sys, time
parser = argparse.ArgumentParser()
for name in ("nnodes", "node-rank", "nproc-per-node", "master-port"):
    parser.add_argument(f"--{name}", type=int)
parser.add_argument("--master-addr")
parser.add_argument("rest", nargs=argparse.REMAINDER)
a = parser.parse_args()
assert os.path.basename(a.rest[0]) == "train_ddp.py", a.rest
if a.node_rank:
    for _ in range(600):
        try:
            with socket.create_connection((a.master_addr, a.master_port)) as other:
                other.sendall(str(a.node_rank).encode())
            sys.exit()
        except OSError:
            time.sleep(0.1)
    sys.exit("no connection")
with socket.create_server((a.master_addr, a.master_port)) as server:
    server.settimeout(60)
    met = server.accept()[0].recv(10).decode()
import mlflow
with mlflow.start_run():
    mlflow.log_params({"nodes": a.nnodes, "met": met, "per_node": a.nproc_per_node, "arguments": " ".join(a.rest[1:])})
"""


# How the two apps copy a template.
COMPOSER = ("rsync", "-r", "--exclude", "manifest.yml")
MANAGER = ("rsync", "-rltp", "--exclude", "launchers/*", "--exclude", ".ondemand/job_log.yml")
RUNS = {
    "notebook-run": 1,
    "notebook-sweep": 6,
    "training-script": 1,
    "torchrun": 1,
    "mlflow-project": 1,
    "nbrun001": 1,
    "nbsweep1": 6,
}


@dataclass(frozen=True)
class Started:
    """A job and the folder that it was started in."""

    folder: Path
    job_id: int


@pytest.fixture(scope="module")
def site(slurm: OwnCluster) -> Site:
    site = Site(slurm)
    standin = slurm.projects / "standin"
    (standin / "torch" / "distributed").mkdir(parents=True)
    (standin / "torch" / "__init__.py").write_text("class cuda:\n    device_count = staticmethod(lambda: 0)\n")
    (standin / "torch" / "distributed" / "__init__.py").touch()
    (standin / "torch" / "distributed" / "run.py").write_text(MEETING)
    settings = yaml.safe_load(site.file.read_text())
    local = {"python": str(slurm.installation.python)}
    settings["environments"] = {
        "sklearn": {"title": "scikit-learn", "local": local},
        "pytorch": {"title": "PyTorch", "local": local, "variables": {"PYTHONPATH": str(standin)}},
    }
    site.file.write_text(yaml.safe_dump(settings))
    return site


def started(site: Site, source: Path, script: str, *options: str, copy: Sequence[str] = COMPOSER, lossi: bool = True) -> Started:
    """Copy a template as the user and submit one of its scripts from the copy."""
    folder = site.cluster.project(site.user)
    site.cluster.run_as(site.user, [*copy, f"{source}/", folder])
    environment = dict(site.env)
    if lossi:
        environment["PATH"] = f"{site.cluster.installation.command.parent}:{site.cluster.environment()['PATH']}"
    argv = ["sbatch", "--parsable", *options, script]
    answer = site.cluster.run_as(site.user, argv, cwd=folder, env=environment).stdout
    return Started(folder, int(answer.split(";")[0]))


def ended(site: Site, job: Started) -> tuple[str, str, str]:
    """Wait for a job's end and return its state, exit code and output."""

    def over() -> dict[str, str] | None:
        fields = site.cluster.job(site.user, job.job_id)
        return None if fields["JobState"] in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING") else fields

    fields = site.cluster.wait(over, f"job {job.job_id} has ended") or {}
    return fields["JobState"], fields["ExitCode"], "\n".join(path.read_text() for path in job.folder.glob("*.log"))


def runs(site: Site, job: Started) -> dict[str, list[Any]]:
    """Return the folder's runs by column."""
    columns: dict[str, list[Any]] = site.cluster.lossi(site.user, "runs", "list", project=job.folder, env=site.env)["columns"]
    return columns


@pytest.fixture(scope="module")
def jobs(site: Site) -> dict[str, Started]:
    """All templates and launchers at once, each in a copy of its own."""
    jobs = {folder.name: started(site, folder, "script.sh") for folder in TEMPLATES}
    for form in LAUNCHERS:
        values = {name: attribute.get("value") for name, attribute in yaml.safe_load(form.read_text())["attributes"].items()}
        options = ["-n", str(values["auto_cores"]), "-t", f"{values['bc_num_hours']}:00:00"]
        jobs[form.parent.name] = started(site, STARTER, values["auto_scripts"], *options, copy=MANAGER)
    return jobs


@pytest.mark.root
@pytest.mark.parametrize("name", RUNS)
def test_a_template_or_launcher_runs_unchanged_and_tracks_its_runs(site: Site, jobs: dict[str, Started], name: str) -> None:
    state, _, output = ended(site, jobs[name])
    assert state == "COMPLETED", output
    columns = runs(site, jobs[name])
    assert len(columns["run_id"]) == RUNS[name] and set(columns["status"]) == {"FINISHED"}, columns
    if name == "torchrun":
        assert (columns["params.nodes"], columns["params.met"], columns["params.arguments"]) == (["2"], ["1"], ["--epochs 20"])


def test_every_template_and_launcher_is_tried() -> None:
    assert {folder.name for folder in TEMPLATES} | {form.parent.name for form in LAUNCHERS} == set(RUNS)


@pytest.mark.root
def test_a_node_without_lossi_says_so(site: Site) -> None:
    job = started(site, TREE / "batch-templates" / "job-composer" / "notebook-run", "script.sh", lossi=False)
    state, code, output = ended(site, job)
    assert (state, code) == ("FAILED", "127:0") and "lossi: command not found on" in output


@pytest.mark.parametrize("folder", TEMPLATES, ids=[folder.name for folder in TEMPLATES])
def test_a_manifest_has_what_the_job_composer_reads(folder: Path) -> None:
    manifest = yaml.safe_load((folder / "manifest.yml").read_text())
    assert set(manifest) == {"name", "notes", "script"}, "the cluster is the site's first one"
    assert all(isinstance(value, str) and value for value in manifest.values())
    assert (folder / manifest["script"]).is_file()


def test_the_starter_project_keeps_the_project_managers_form() -> None:
    manifest = yaml.safe_load((STARTER / ".ondemand" / "manifest.yml").read_text())
    assert set(manifest) == {"id", "name", "description", "icon"}
    assert len(LAUNCHERS) == 2
    for form in LAUNCHERS:
        assert len(form.parent.name) == 8 and form.parent.name.isalnum()
        launcher = yaml.safe_load(form.read_text())
        assert set(launcher) == {"title", "created_at", "form", "attributes"}
        assert {"auto_scripts", "auto_batch_clusters"} <= set(launcher["form"]) >= set(launcher["attributes"])
        assert (STARTER / launcher["attributes"]["auto_scripts"]["value"]).is_file()


def test_no_template_is_specific_to_a_site() -> None:
    for script in SCRIPTS:
        text = script.read_text()
        assert not any(word in text for word in ("/etc/", "/opt/", "/usr/", "/home/", "--partition", "--account")), script


@pytest.mark.parametrize("script", SCRIPTS, ids=[str(path.relative_to(TREE)) for path in SCRIPTS])
def test_scripts_are_clean(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert script.stat().st_mode & 0o111
    done = subprocess.run([Path(sys.executable).with_name("shellcheck"), script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
