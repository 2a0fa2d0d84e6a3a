"""The argv against a real Apptainer, where there is one: what a container sees, and that nothing is evaluated on the way.

The image is a sandbox folder without content of its own; the programs come from this machine's /usr, mounted as the catalogue says.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lossi import environments
from lossi.contract.records import ResolvedEnvironment

pytestmark = [
    pytest.mark.host("apptainer"),
    pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="no /usr/bin/python3 on this machine"),
]

LOOK = """
import json, os, site, sys
print(json.dumps({
    "variables": dict(os.environ), "cwd": os.getcwd(), "arguments": sys.argv[1:], "user_site": site.ENABLE_USER_SITE,
    "tmp": sorted(os.listdir("/tmp")), "home": sorted(os.listdir(os.environ["HOME"])),
    "writable": [path for path in ("/tmp", os.environ["HOME"], "/usr", os.getcwd()) if os.access(path, os.W_OK)],
}))
"""


@pytest.fixture
def sandbox(home: Path, tmp_path: Path, user_catalog: Callable[[str], Path]) -> ResolvedEnvironment:
    root = tmp_path / "image"
    for folder in ("usr", "etc", "tmp", "var/tmp", "proc", "sys", "dev", "root", "home"):
        (root / folder).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    for name in ("passwd", "group", "hosts", "resolv.conf", "localtime"):
        (root / "etc" / name).touch()
    machine = platform.machine()
    user_catalog(f"""\
        environments:
          boxed:
            title: Boxed
            variants: {{{machine}: {{none: {{sif: {root}}}, cuda: {{sif: {root}}}}}}}
            variables: {{ODD: 'a,b "c" $(id) `id` =x'}}
            mounts: [{{source: /usr, read_only: true}}]
    """)
    return environments.resolve(environments.load().get("boxed"))


def run(
    resolved: ResolvedEnvironment, workdir: Path, *arguments: str, extra: dict[str, str] | None = None, **options: object
) -> dict:
    argv = environments.command(resolved, [resolved.python, "-c", LOOK, *arguments], **options)  # type: ignore[arg-type]
    variables = {**environments.clean_environment(resolved, extra or {}), "APPTAINER_WORKDIR": str(workdir)}
    done = subprocess.run(argv, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_container_sees_only_its_binds_and_values_arrive_byte_for_byte(
    sandbox: ResolvedEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY_BASE", "secret")
    monkeypatch.setenv("APPTAINER_BIND", "/etc:/stolen")
    monkeypatch.setenv("APPTAINERENV_LD_PRELOAD", "/evil.so")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    project = tmp_path / 'a project, with: "odd" $(id) é'
    project.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    hostile = ["$(touch /tmp/evil)", "`id`", "a\nb", "--x", "'\"", ""]
    report = run(sandbox, work, *hostile, extra={"X": "$(id)\n,\"é'"}, binds=[project], cwd=project)
    assert report["arguments"] == hostile
    assert report["cwd"] == str(project)
    variables = report["variables"]
    assert (variables["X"], variables["ODD"], variables["SLURM_JOB_ID"]) == ("$(id)\n,\"é'", 'a,b "c" $(id) `id` =x', "7")
    assert (variables["PYTHONNOUSERSITE"], report["user_site"]) == ("1", False)
    assert not {"SECRET_KEY_BASE", "LD_PRELOAD"} & variables.keys()
    assert not any("stolen" in value for value in variables.values())
    # A private /tmp (which holds only the way to the project) and an empty HOME, on disk below the work folder.
    assert report["tmp"] == ([project.parts[2]] if project.is_relative_to("/tmp") else [])
    assert report["home"] == []
    assert {"/tmp", variables["HOME"], str(project)} <= set(report["writable"])
    assert (work / "tmp").is_dir()


def test_accelerator_option_is_accepted_without_a_gpu(sandbox: ResolvedEnvironment, tmp_path: Path) -> None:
    resolved = environments.resolve(environments.load().get("boxed"), accelerator="cuda")
    assert "--nv" in resolved.prefix
    assert run(resolved, tmp_path)["arguments"] == []


def test_check_finds_missing_packages_of_an_image(sandbox: ResolvedEnvironment) -> None:
    checks = environments.check(sandbox)
    assert checks[0].name == "Python 3.9 or later" and checks[0].ok
    fault = next(check for check in checks if not check.ok)
    assert "recipe" in fault.remedy
