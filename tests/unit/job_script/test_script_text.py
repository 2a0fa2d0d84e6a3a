"""The text of script.sh: what differs between jobs, and that nothing in it is evaluated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from script_runs import JOB_ID, LEAVES_RECORD, SHELLS, exit_record, make, run
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from lossi.errors import InvalidInput
from lossi.jobs.submit import script
from lossi.jobs.submit.script import Header


class ScriptFile(SingleFileSnapshotExtension):
    """Golden headers are scripts, so that an editor reads them as such."""

    _write_mode = WriteMode.TEXT
    file_extension = "sh"


@pytest.fixture
def golden(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(ScriptFile)


def rendered(header: Header) -> str:
    """Return what differs between jobs; the rest is `body.sh` as it is."""
    text = script.render(header)
    assert text.endswith(script.body())
    return text.removesuffix(script.body())


def test_header_of_a_local_job(golden: SnapshotAssertion) -> None:
    argv = ["/opt/venv/bin/python", "/work/p/.lossi/jobs/x/runner.pyz", "run", "--job", "/work/p/.lossi/jobs/x"]
    assert rendered(Header(JOB_ID, Path("/work/p/.lossi/jobs/x"), 12, argv)) == golden


def test_header_of_a_job_with_directives_variables_and_odd_paths(golden: SnapshotAssertion) -> None:
    place = Path("/scratch/it's $(here) `now`/50% ?/\xe4")
    argv = [
        "apptainer",
        "exec",
        "--bind",
        f"{place}:{place}",
        "/images/a b.sif",
        "python3",
        f"{place}/runner.pyz",
        "run",
        "--job",
        str(place),
    ]
    header = Header(
        JOB_ID,
        place,
        10_000,
        argv,
        "apptainer",
        {"B": "two\nlines", "A": "$HOME; \"'"},
        ["#SBATCH --time=60", "#SBATCH --array=0-9999%50"],
    )
    assert rendered(header) == golden


def test_header_of_a_job_on_several_nodes_with_setup_and_scratch(golden: SnapshotAssertion) -> None:
    header = Header(
        JOB_ID,
        Path("/work/p/.lossi/jobs/x"),
        1,
        ["python3", "runner.pyz", "run"],
        nodes=4,
        setup=["module load apptainer", "export NCCL_SOCKET_IFNAME='hsn' # it's ours"],
        scratch="/run/nvme/job_$SLURM_JOB_ID/$USER's",
    )
    assert rendered(header) == golden


@pytest.mark.parametrize("more", [{}, {"nodes": 2, "setup": ["module load a", "x=$Y"], "scratch": "/scratch/$USER"}])
def test_shellcheck_finds_nothing(tmp_path: Path, more: dict[str, Any]) -> None:
    path = tmp_path / "script.sh"
    header = Header(JOB_ID, Path("/a b"), 1, ["python3", "it's"], "apptainer", {"A": "b"}, ["#SBATCH -t 1"], **more)
    path.write_text(script.render(header))
    # SC2016: the site's lines are quoted; the shell expands them when it runs them.
    argv = [Path(sys.executable).with_name("shellcheck"), "--shell=sh", "--exclude=SC2016", path]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    "header",
    [
        Header("x; rm -rf /", Path("/j"), 1, ["p"]),
        Header(JOB_ID, Path("/j"), 1, ["p"], "x; rm -rf /"),
        Header(JOB_ID, Path("/j\0"), 1, ["p"]),
        Header(JOB_ID, Path("/j"), 1, ["p\0"]),
        Header(JOB_ID, Path("/j"), 1, ["p"], "local", {"A B": "x"}),
        Header(JOB_ID, Path("/j"), 1, ["p"], "local", {"A": "\0"}),
        Header(JOB_ID, Path("/j"), 1, ["p"], "local", {}, ["#SBATCH -t 1\nrm -rf /"]),
        Header(JOB_ID, Path("/j"), 1, ["p"], "local", {}, ["rm -rf /"]),
        Header(JOB_ID, Path("/j"), 1, ["p"], "local", {}, ["#!/bin/evil"]),
        Header(JOB_ID, Path("/j"), 1, ["p"], setup=["module load a\nrm -rf /"]),
        Header(JOB_ID, Path("/j"), 1, ["p"], setup=["\0"]),
        Header(JOB_ID, Path("/j"), 1, ["p"], scratch="/scratch/$(id)"),
        Header(JOB_ID, Path("/j"), 1, ["p"], scratch="/scratch/$HOME"),
        Header(JOB_ID, Path("/j"), 1, ["p"], scratch="scratch"),
        Header(JOB_ID, Path("/j"), 1, ["p"], scratch="/a\nb"),
    ],
)
def test_values_that_a_script_cannot_hold_are_refused(header: Header) -> None:
    with pytest.raises(InvalidInput):
        script.render(header)


@settings(max_examples=25)
@given(
    st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30), max_size=4),
    st.sampled_from(SHELLS),
)
def test_any_argument_arrives_byte_for_byte_and_nothing_is_evaluated(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], shell: str
) -> None:
    directory = tmp_path_factory.mktemp("job")
    path = make(
        directory, "", argv=[sys.executable, "-c", "import json, sys; json.dump(sys.argv[1:], open('seen', 'w'))", *words]
    )
    run(shell, path)
    assert json.loads((directory / "seen").read_text()) == [*words, "--task", "0", "--attempt", "1"]


def test_a_path_that_is_not_utf8_arrives(tmp_path: Path, shell: str) -> None:
    directory = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    directory.mkdir()
    done = run(shell, make(directory, LEAVES_RECORD))
    assert done.returncode == 0, done.stderr
    assert exit_record(directory).state == "succeeded"
