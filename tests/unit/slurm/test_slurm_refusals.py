"""What Slurm's commands say when they refuse becomes an error that says what to do."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from lossi.errors import Forbidden, InvalidInput, LossiError, Unavailable
from lossi.jobs.schedulers.slurm import refusals

# What sbatch 22.05.8 said.
REFUSALS = [
    (
        "sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission failed: Invalid partition name specified\n",
        "partitions",
    ),
    ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified\n", "account"),
    ("sbatch: error: Batch job submission failed: Invalid qos specification\n", "quality"),
    ("sbatch: error: Batch job submission failed: Requested node configuration is not available\n", "no node"),
    ("sbatch: error: Invalid generic resource (gres) specification\n", "GPU type"),
    (
        "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)\n",
        "time limit",
    ),
    ("sbatch: error: Invalid --time specification\n", "time limit"),
    ("sbatch: error: Batch job submission failed: More processors requested than permitted\n", "fewer cores"),
    ("sbatch: error: Memory specification can not be satisfied\n", "less memory"),
    ("sbatch: error: Batch job submission failed: Node count specification invalid\n", "nodes"),
    ("sbatch: error: Batch job submission failed: Invalid feature specification\n", "constraint"),
    ("sbatch: error: Batch job submission failed: Job dependency problem\n", "afterok"),
    ("sbatch: error: Batch job submission failed: Invalid job array specification\n", "fewer"),
    (
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)\n",
        "fewer tasks",
    ),
    ("allocation failure: Invalid partition name specified\n", "partitions"),
]


@pytest.mark.parametrize(("stderr", "hint"), REFUSALS)
def test_a_refusal_is_told_in_slurms_own_words_with_a_hint(stderr: str, hint: str) -> None:
    error = refusals.error_of("sbatch", stderr, 1)
    assert type(error) is InvalidInput
    assert hint in error.hint
    assert "error:" not in error.why
    assert "sbatch" not in error.why
    assert "failed:" not in error.why


@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        ("squeue: error: Unable to contact slurm controller (connect failure)\n", Unavailable),
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", Unavailable),
        (
            "sacct: error: slurm_persist_conn_open_without_init: failed to open persistent connection to host:localhost:6819: Connection refused\n",
            Unavailable,
        ),
        ("sacct: error: Problem talking to the database: Connection refused\n", Unavailable),
        ("squeue: fatal: Could not establish a configuration source\n", Unavailable),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n", Unavailable),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)\n", Unavailable),
        ("", Unavailable),
        ("scancel: error: Kill job error on job id 95: Access/permission denied\n", Forbidden),
        ("sbatch: error: Batch job submission failed: User's group not permitted to use this partition\n", Forbidden),
    ],
)
def test_what_is_down_and_what_is_not_allowed_are_told_apart(stderr: str, kind: type[LossiError]) -> None:
    assert type(refusals.error_of("squeue", stderr, 1)) is kind


@given(st.text(max_size=200), st.integers(-9, 255))
def test_whatever_is_said_becomes_an_error_on_one_line(stderr: str, status: int) -> None:
    error = refusals.error_of("sbatch", stderr, status)
    assert "\n" not in str(error)


def test_jobs_that_have_ended_are_told_from_other_refusals() -> None:
    assert refusals.is_gone("scancel: error: Kill job error on job id 9: Invalid job id specified\n")
    assert refusals.is_gone("scancel: error: Kill job error on job id 9: Job/step already completing or completed\n")
    assert not refusals.is_gone(
        "scancel: error: Kill job error on job id 9: Access/permission denied\nscancel: error: Invalid job id 1\n"
    )
    assert not refusals.is_gone("")
