"""Command lines, environment variables and folders of a payload."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from lossi.contract.records import PreparedJob, Resources, TrackingTarget
from lossi.runner import paths, payload_argv, payload_environment
from lossi.runner.errors import TaskFailure


@given(st.dictionaries(st.from_regex(r"[a-z_]\w{0,5}", fullmatch=True), st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_placeholders_in_values_are_not_replaced(values: dict[str, str], around: list[str]) -> None:
    """Any value is inserted whole and once."""
    for name, value in values.items():
        assert payload_argv.substitute([f"<{{{name}}}>"], values)[0] == [f"<{value}>"]
    untouched = [text for text in around if "{" not in text]
    assert payload_argv.substitute(untouched, values) == (untouched, set())


def test_flags(tmp_path: Path) -> None:
    argv = payload_argv.script_argv(
        "python", tmp_path / "a.py", {"a": 1, "b": "-v", "c": None, "d": False, "e": math.nan}, ["{a}"]
    )
    assert argv[2:] == [b"1", b"--b=-v", b"--d", b"false", b"--e", b"nan"]


def test_limits_of_a_command_line() -> None:
    assert payload_argv.encode(["x" * payload_argv.ARGUMENT_LIMIT])
    for bad in ("x" * (payload_argv.ARGUMENT_LIMIT + 1), "a\0b", "\ud800"):
        with pytest.raises(TaskFailure, match="LOSSI_PARAMETERS"):
            payload_argv.encode([bad])


def test_interpreters(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    with pytest.raises(TaskFailure, match="no interpreter"):
        payload_argv.interpreter("python", tool)
    tool.chmod(0o755)
    assert payload_argv.interpreter("python", tool) == [str(tool)]
    assert payload_argv.interpreter("python", tmp_path / "x.R") == ["Rscript", str(tmp_path / "x.R")]
    assert payload_argv.interpreter("python", tmp_path / "x.sh") == ["/bin/sh", str(tmp_path / "x.sh")]


@pytest.mark.parametrize("line", [b"", b"[1]", b"{", b"\xff"])
def test_broken_parameters(line: bytes) -> None:
    with pytest.raises(TaskFailure):
        payload_argv.parse_parameters(line)


def prepared(**changes: object) -> PreparedJob:
    return PreparedJob(
        "01x", "n", "notebook", "/p", "ada", "now", tracking=TrackingTarget("e"), resources=Resources(cpus=3), **changes
    )  # type: ignore[arg-type]


def test_the_environment_keeps_and_drops(tmp_path: Path) -> None:
    task_paths = paths.TaskPaths(tmp_path, tmp_path / "t", tmp_path / "w")
    base = {"HOME": "/h", "MLFLOW_RUN_ID": "x", "OMP_NUM_THREADS": "2", "PATH": "/bin", "MLFLOW_TRACKING_TOKEN": "t"}
    result = payload_environment.payload_environment(
        base, prepared(), 4, task_paths, python="/env/bin/python", tags={"lossi.task": "4"}
    )
    assert result["PATH"] == "/env/bin:/bin"
    assert result["OMP_NUM_THREADS"] == "2"
    assert (result["HOME"], result["MLFLOW_TRACKING_TOKEN"]) == ("/h", "t")
    assert "MLFLOW_RUN_ID" not in result
    requeued = payload_environment.payload_environment(
        {}, prepared(), 4, task_paths, python="/env/bin/python", tags={}, run_id="r"
    )
    assert requeued["MLFLOW_RUN_ID"] == "r"
    assert "MLFLOW_EXPERIMENT_NAME" not in requeued
    assert requeued["OMP_NUM_THREADS"] == "3"


def test_the_run_context_fits_one_variable() -> None:
    big = {f"t{i}": "x" * 5000 for i in range(40)}
    assert json.loads(payload_environment.run_context("{bad", {**big, "lossi.task": "1"}, {"lossi.task": "1"})) == {
        "lossi.task": "1"
    }
    assert json.loads(payload_environment.run_context('{"a": 1}', {"b": "2"}, {})) == {"a": "1", "b": "2"}


def test_a_node_local_folder_that_sqlite_uris_can_name(tmp_path: Path) -> None:
    odd = tmp_path / "what?"
    odd.mkdir()
    task_paths = paths.make(tmp_path / "job", 0, {"TMPDIR": str(odd)})
    try:
        assert task_paths.work.parent == Path(os.path.realpath("/tmp"))
        assert task_paths.work.stat().st_mode & 0o777 == 0o700
        (task_paths.code / "ro").mkdir()
        (task_paths.code / "ro" / "x").touch()
        (task_paths.code / "ro").chmod(0o500)
    finally:
        task_paths.remove()
    assert not task_paths.work.exists()
