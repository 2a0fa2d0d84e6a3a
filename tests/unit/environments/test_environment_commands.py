"""``lossi env`` and ``lossi exec`` as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = """
import sys, typer
from lossi.cli import environments, output
from lossi.errors import LossiError
app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(environments.app, name="env")
app.command("exec", context_settings={"ignore_unknown_options": True})(environments.exec_command)
try:
    app()
except LossiError as error:
    sys.exit(output.failure(error, as_json="--json" in sys.argv))
"""


def lossi(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, cwd=cwd, check=False)


def test_list_shows_environments_and_problems(user_catalog: Callable[[str], Path]) -> None:
    path = user_catalog("environments:\n  mine: {title: 3}\n")
    done = lossi("env", "list")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("python", "sklearn", "pytorch", "tensorflow", "not built here"))
    assert f"left out: {path}:2: environments.mine.title: is not text" in done.stderr
    data = json.loads(lossi("env", "list", "--json").stdout)
    assert [item["name"] for item in data["environments"]] == ["python", "sklearn", "pytorch", "tensorflow"]
    assert data["environments"][0]["ways"] == [{"target": "local", "variant": "local", "usable": True, "detail": sys.executable}]
    assert [problem["line"] for problem in data["problems"]] == [2]


def test_show_prints_source_and_what_is_missing(home: Path) -> None:
    done = lossi("env", "show", "pytorch")
    assert done.returncode == 0
    assert "catalog.yml, line" in done.stdout and "x86_64-rocm" in done.stdout
    assert json.loads(lossi("env", "show", "sklearn", "--json").stdout)["frameworks"]["scikit-learn"]


def test_unknown_environment_is_exit_code_3_with_a_suggestion(home: Path) -> None:
    for arguments in (("env", "show", "sklaern"), ("env", "check", "sklaern"), ("exec", "sklaern", "--", "true")):
        done = lossi(*arguments)
        assert (done.returncode, "did you mean 'sklearn'?" in done.stderr, "Traceback" in done.stderr) == (3, True, False)


def test_check_of_an_added_environment_finds_faults(home: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    done = lossi("env", "add", "bare", "--python", "venv", "--title", "Bare", cwd=tmp_path)
    assert (done.returncode, "Next: lossi env check bare" in done.stdout) == (0, True)
    done = lossi("env", "check", "bare", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["ok"], answer["environment"]["python"]) == (1, False, str(tmp_path / "venv/bin/python"))
    assert "pip install papermill" in next(check["remedy"] for check in answer["checks"] if check["name"] == "papermill")
    assert lossi("env", "add", "bare", "--python", "auto").returncode == 4


def test_exec_runs_in_the_environment_and_returns_its_exit_code(home: Path, tmp_path: Path) -> None:
    code = "import sys, os; print(sys.executable, os.getcwd(), os.environ['PYTHONNOUSERSITE'], sys.argv[1:]); sys.exit(7)"
    done = lossi("exec", "sklearn", "--", "python", "-c", code, "$(id)", "a\nb", "--json", cwd=tmp_path)
    assert done.returncode == 7
    assert done.stdout == f"{sys.executable} {tmp_path} 1 {['$(id)', 'a' + chr(10) + 'b', '--json']}\n"


def test_exec_of_a_missing_program(home: Path) -> None:
    done = lossi("exec", "sklearn", "--", "no-such-program")
    assert (done.returncode, "there is no program 'no-such-program'" in done.stderr) == (3, True)
    assert lossi("exec", "sklearn", "--", "-c", "x").returncode == 2
    assert lossi("exec", "sklearn").returncode == 2


def test_show_prints_the_argv_quoted_or_as_json(home: Path) -> None:
    assert lossi("exec", "sklearn", "--show", "--", "python", "-c", "a b").stdout == f"{sys.executable} -c 'a b'\n"
    done = lossi("exec", "sklearn", "--show", "--json", "--", "echo", "$(id)\n")
    assert json.loads(done.stdout) == ["echo", "$(id)\n"]


def test_exec_show_binds_project_and_current_folder(
    user_catalog: Callable[[str], Path], sif: Callable[..., Path], tmp_path: Path
) -> None:
    machine = os.uname().machine
    image = sif(architecture=b"02" if machine == "x86_64" else b"04")
    user_catalog(f"environments: {{own: {{title: O, variants: {{{machine}: {{cuda: {{sif: {image}}}}}}}}}}}")
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    (project / "sub").mkdir()
    shown = lossi(
        "exec",
        "own",
        "--show",
        "--json",
        "--accelerator",
        "cuda",
        "--bind",
        "/data",
        "--",
        "nvidia-smi",
        "-L",
        cwd=project / "sub",
    )
    assert shown.returncode == 0, shown.stderr
    argv = json.loads(shown.stdout)
    assert argv[:2] == ["apptainer", "exec"] and "--nv" in argv
    at = argv.index(str(image))
    assert argv[at - 6 : at] == ["--bind", f"{project}:{project}", "--bind", "/data:/data", "--pwd", str(project / "sub")]
    assert argv[at + 1 :] == ["nvidia-smi", "-L"]


def test_exec_in_a_container_without_apptainer_fails_with_a_reason(
    user_catalog: Callable[[str], Path], sif: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = os.uname().machine
    image = sif(architecture=b"02" if machine == "x86_64" else b"04")
    user_catalog(f"environments: {{own: {{title: O, variants: {{{machine}: {{none: {{sif: {image}}}}}}}}}}}")
    monkeypatch.setenv("PATH", str(tmp_path))
    done = lossi("exec", "own", "--", "true")
    assert (done.returncode, "there is no Apptainer on this machine" in done.stderr) == (5, True)


def test_exec_of_a_container_returns_its_exit_code_and_leaves_nothing(
    user_catalog: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way, with a program in Apptainer's place that behaves like one: shows its argv and variables."""
    runtime = tmp_path / "bin" / "apptainer"
    runtime.parent.mkdir()
    runtime.write_text(
        f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([sys.argv, dict(os.environ)]))\nsys.exit(9)\n"
    )
    runtime.chmod(0o755)
    monkeypatch.setenv("PATH", f"{runtime.parent}:/usr/bin:/bin")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("SECRET_KEY_BASE", "secret")
    (tmp_path / "image" / "usr").mkdir(parents=True)
    user_catalog(f"environments: {{own: {{title: O, variants: {{{os.uname().machine}: {{none: {{sif: {tmp_path}/image}}}}}}}}}}")
    done = lossi("exec", "own", "--", "true", cwd=tmp_path)
    assert done.returncode == 9, done.stderr
    argv, variables = json.loads(done.stdout)
    assert argv[0] == str(runtime) and argv[-1] == "true"
    assert variables["APPTAINER_WORKDIR"].startswith(f"{tmp_path}/lossi-exec-")
    assert not Path(variables["APPTAINER_WORKDIR"]).exists()
    assert "secret" not in str(variables)


def test_last_lines_of_a_failed_builder_are_shown(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "podman").write_text("#!/bin/sh\necho 'STEP 2: RUN false'\necho 'Error: it said no' >&2\nexit 125\n")
    (tmp_path / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = lossi("env", "build", "sklearn", "--own", "--no-sif", "--variant", f"{os.uname().machine}-none")
    assert done.returncode == 5
    lines = done.stderr.splitlines()
    assert "  | STEP 2: RUN false" in lines and "  | Error: it said no" in lines
    assert "  why:  Error: it said no" in lines
