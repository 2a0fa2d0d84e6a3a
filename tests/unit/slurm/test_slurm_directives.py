"""sbatch's options for a request, as argv and as the lines of script.sh."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from lossi.errors import InvalidInput
from lossi.jobs.schedulers.slurm import directives
from lossi.jobs.schedulers.slurm.request import SlurmRequest

REQUEST = SlurmRequest("lossi-01abc", Path("/p/j/script.sh"), Path("/p/j"), Path("/p/j/scheduler.log"))


def test_a_small_job_asks_for_nothing_it_was_not_given() -> None:
    assert directives.option_list(REQUEST) == [
        "--job-name=lossi-01abc",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--cpus-per-task=1",
        "--open-mode=append",
        "--export=NONE",
        "--requeue",
    ]


def test_everything_that_can_be_asked_for() -> None:
    request = replace(
        REQUEST,
        nodes=2,
        cpus=8,
        memory_mb=16000,
        gpus=4,
        gpu_type="a100",
        time_limit_min=90,
        partition="gpu",
        account="proj1",
        qos="long",
        constraint="a100&ib",
        array=range(1000),
        throttle=20,
        signal_s=60,
        requeue=False,
        dependency="afterok:12:13",
        environment={"LOSSI_OFFSET": "1000", "MODE": "a b"},
        options=("--hint=nomultithread", "--comment=two words"),
    )
    assert directives.option_list(request) == [
        "--job-name=lossi-01abc",
        "--partition=gpu",
        "--account=proj1",
        "--qos=long",
        "--constraint=a100&ib",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=8",
        "--mem=16000M",
        "--gres=gpu:a100:4",
        "--time=90",
        "--array=0-999%20",
        "--dependency=afterok:12:13",
        "--kill-on-invalid-dep=yes",
        "--signal=B:USR1@60",
        "--open-mode=append",
        "--export=LOSSI_OFFSET=1000,MODE=a b",
        "--no-requeue",
        "--hint=nomultithread",
        "--comment=two words",
    ]
    assert '#SBATCH "--comment=two words"' in directives.lines(request)
    assert [shlex.split(line)[1] for line in directives.lines(request)] == directives.option_list(request)


@pytest.mark.parametrize(
    ("option", "kind", "words"),
    [
        ("gres", "a100", "--gres=gpu:a100:2"),
        ("gres", None, "--gres=gpu:2"),
        ("gpus-per-node", "a100", "--gpus-per-node=a100:2"),
        ("gpus-per-node", None, "--gpus-per-node=2"),
    ],
)
def test_gpus_in_the_sites_way(option: str, kind: str | None, words: str) -> None:
    assert words in directives.option_list(replace(REQUEST, gpus=2, gpu_type=kind, gpu_option=option))


@pytest.mark.parametrize("value", ["a,b", 'a"b', "a'b", "a\nb", "a\\b", "\x00"])
def test_a_value_that_export_cannot_carry_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be passed to Slurm"):
        directives.option_list(replace(REQUEST, environment={"X": value}))


@pytest.mark.parametrize("name", ["", "1X", "A=B", "A B", "ALL", "NONE", "A,B", "A\n"])
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a valid name"):
        directives.option_list(replace(REQUEST, environment={name: "x"}))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"), max_size=40))
def test_a_line_of_the_script_holds_exactly_the_option(value: str) -> None:
    (line,) = directives.lines(replace(REQUEST, options=(f"--comment={value}",)))[-1:]
    assert shlex.split(line.removeprefix("#SBATCH ")) == [f"--comment={value}"]
