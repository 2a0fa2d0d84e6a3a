"""The argv and the variables that start an environment."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from lossi import environments
from lossi.contract.records import ResolvedEnvironment
from lossi.environments.command import bind_options, container_prefix, reference
from lossi.errors import InvalidInput, Unavailable

SIF = "/appl/sif/pytorch-2.11.sif"
GOLDEN_START = ["apptainer", "exec", "--cleanenv", "--contain", "--no-eval"]
GOLDEN_ENV = ["--env", "PYTHONNOUSERSITE=1", "--env", "LANG=C.UTF-8"]


def container(accelerator: str = "none", **more: object) -> ResolvedEnvironment:
    prefix = container_prefix(SIF, accelerator=accelerator, as_root=False, **more)  # type: ignore[arg-type]
    return ResolvedEnvironment("pytorch", "apptainer", "python3", prefix=prefix, variant=f"x86_64-{accelerator}", sif=SIF)


def local(python: str = "/venv/bin/python", **more: object) -> ResolvedEnvironment:
    return ResolvedEnvironment("own", "local", python, variant="local", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("accelerator", "option"), [("none", []), ("cuda", ["--nv"]), ("rocm", ["--rocm"])])
def test_golden_argv_of_apptainer(accelerator: str, option: list[str]) -> None:
    argv = environments.command(container(accelerator), ["python3", "-c", "x"], binds=["/project"], cwd="/project/sub")
    expected = [
        *GOLDEN_START,
        *option,
        *GOLDEN_ENV,
        "--bind",
        "/project:/project",
        "--pwd",
        "/project/sub",
        SIF,
        "python3",
        "-c",
        "x",
    ]
    assert argv == expected


def test_root_needs_a_user_namespace() -> None:
    assert "--userns" in container_prefix(SIF, accelerator="none", as_root=True)
    assert "--userns" not in container_prefix(SIF, accelerator="none", as_root=False)


def test_mounts_of_the_catalogue_and_variables_are_part_of_the_prefix() -> None:
    mounts = [environments.Mount(source="/scratch"), environments.Mount(source="/data", target="/d", read_only=True)]
    resolved = container(mounts=mounts, variables={"B": 'a,b "c" $(id)\n', "A": "1"})
    binds = ["--bind", "/scratch:/scratch", "--bind", "/data:/d:ro"]
    assert resolved.prefix == [*GOLDEN_START, *GOLDEN_ENV, *binds, SIF, "env", "A=1", 'B=a,b "c" $(id)\n']
    # Options of a command still go before the image.
    assert environments.command(resolved, ["true"], binds=["/p"])[-6:] == [
        "/p:/p",
        SIF,
        "env",
        "A=1",
        'B=a,b "c" $(id)\n',
        "true",
    ]


def test_pinned_reference_loses_its_tag_but_not_the_port() -> None:
    digest = "sha256:" + "a" * 64
    assert reference("localhost:5000/x", digest) == f"docker://localhost:5000/x@{digest}"
    assert reference("localhost:5000/x/y:1.0-rc", digest) == f"docker://localhost:5000/x/y@{digest}"


@pytest.mark.parametrize("path", ["/a,b", "/a:b", "/a b", '/a"b', "/a\\b", "/é", "/a$(id)`x`;'", "/?%20", "/ends with space "])
def test_special_paths_are_one_csv_record(path: str) -> None:
    import csv

    option, text = bind_options(path)
    assert option == "--mount"
    assert next(csv.reader([text])) == ["type=bind", f"source={path}", f"destination={path}"]


@pytest.mark.parametrize("path", ["relative", "", "/a\nb", "/a\x00b", "/a\x1b[2J"])
def test_impossible_container_paths_are_refused(path: str) -> None:
    with pytest.raises(InvalidInput):
        environments.command(container(), ["true"], binds=[path])
    with pytest.raises(InvalidInput):
        environments.command(container(), ["true"], binds=[environments.bind(path, read_only=True)])
    with pytest.raises(InvalidInput):
        environments.command(container(), ["true"], cwd=path)


@pytest.mark.parametrize("resolved", [local(), container()])
def test_arguments_stay_byte_for_byte(resolved: ResolvedEnvironment) -> None:
    hostile = ["prog", "$(touch /tmp/x)", "`id`", "a\nb", "-x", "--", "'\"", "é\udcff", "", "x" * 1_000_000]
    assert environments.command(resolved, hostile)[-len(hostile) :] == hostile


@pytest.mark.parametrize("argv", [[], [""], ["-c", "x"], ["--bind", "/:/x"], ["a", "b\0c"]])
def test_impossible_commands_are_refused(argv: list[str]) -> None:
    for resolved in (local(), container()):
        with pytest.raises(InvalidInput):
            environments.command(resolved, argv)


def test_python_means_the_environments_own() -> None:
    assert environments.command(local(), ["python", "-V"]) == ["/venv/bin/python", "-V"]
    assert environments.command(local(), ["python3"]) == ["/venv/bin/python"]
    assert environments.command(local(), ["R"]) == ["R"]
    assert environments.command(container(), ["python", "-V"])[-2:] == ["python", "-V"]


HOSTILE_VARIABLES = {
    "PYTHONPATH": "/evil",
    "PYTHONSTARTUP": "/evil.py",
    "RUBYOPT": "-revil",
    "BUNDLE_GEMFILE": "/x",
    "SECRET_KEY_BASE": "secret",
    "LD_PRELOAD": "/evil.so",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "SSH_AUTH_SOCK": "/agent",
    "APPTAINER_BIND": "/",
    "APPTAINERENV_LD_PRELOAD": "/evil.so",
    "SINGULARITY_BINDPATH": "/",
    "SLURM_JWT": "secret",
    "LOSSI_SERVE_TOKEN": "secret",
    "BASH_FUNC_ls%%": "() { evil; }",
    "ENV": "/evil.sh",
}


@pytest.mark.parametrize("resolved", [local(), container()])
def test_clean_environment_keeps_only_what_is_needed(resolved: ResolvedEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in HOSTILE_VARIABLES.items():
        monkeypatch.setenv(name, value)
    for name in ("HOME", "PATH", "USER", "LANG", "TMPDIR", "LC_ALL", "SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, f"/kept/{name}")
    variables = environments.clean_environment(resolved, {"LOSSI_TASK": "3"})
    assert not HOSTILE_VARIABLES.keys() & variables.keys()
    assert "secret" not in str(variables) and "evil" not in str(variables)
    assert {"HOME", "PATH", "USER", "LANG", "TMPDIR", "LC_ALL", "SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"} <= variables.keys()
    assert variables["LOSSI_TASK"] == "3"


def test_local_environment_has_its_programs_first_and_no_user_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (tmp_path / "bin").mkdir()
    (tmp_path / "pyvenv.cfg").touch()
    variables = environments.clean_environment(local(f"{tmp_path}/bin/python", variables={"A": "1"}), {"A": "2"})
    assert variables["PATH"] == f"{tmp_path}/bin:/usr/bin:/bin"
    assert (variables["VIRTUAL_ENV"], variables["PYTHONNOUSERSITE"], variables["A"]) == (str(tmp_path), "1", "2")


def test_variables_cross_into_a_container_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", "/usr/bin")
    variables = environments.clean_environment(container(), {"X": "$(id)\n,é"})
    assert (variables["APPTAINERENV_SLURM_JOB_ID"], variables["APPTAINERENV_X"]) == ("7", "$(id)\n,é")
    # The image has a PATH, a HOME and a /tmp of its own.
    assert (
        not {"APPTAINERENV_PATH", "APPTAINERENV_HOME", "APPTAINERENV_TMPDIR", "APPTAINERENV_LD_LIBRARY_PATH"} & variables.keys()
    )


def test_missing_runtime_has_a_hint(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no Apptainer on this machine") as caught:
        environments.runtime(str(tmp_path))
    assert "module" in caught.value.hint


def test_resolved_container_of_the_catalogue_is_golden(
    user_catalog: Callable[[str], Path], sif: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    path = sif(architecture=b"04")
    user_catalog(
        f"environments: {{own: {{title: O, variants: {{aarch64: {{cuda: {{sif: {path}}}}}}}, mounts: [{{source: /scratch}}]}}}}"
    )
    resolved = environments.resolve(environments.load().get("own"), accelerator="cuda", architecture="aarch64")
    assert resolved.prefix == [*GOLDEN_START, "--nv", *GOLDEN_ENV, "--bind", "/scratch:/scratch", str(path)]
    assert resolved.variant == "aarch64-cuda"
    assert platform.machine()  # the target is not this machine
