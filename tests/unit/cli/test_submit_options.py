"""The options of `lossi run` and `lossi sweep` follow the JobSpec."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from lossi.cli import submit_options
from lossi.cli.submit_options import Options
from lossi.errors import InvalidInput
from lossi.jobs import JobSpec, Resources, validated

FROM_SOURCE = {"notebook", "script", "command", "arguments", "working_directory", "parameters", "sweep"}
"""Members that follow from several options together."""


def names(model: type[Any]) -> set[str]:
    return set(model.model_fields)


def test_every_member_of_a_job_has_an_option_and_every_option_a_member() -> None:
    paths = {member.path for _, member in submit_options.declared() if member is not None}
    resources = {path.partition(".")[2] for path in paths if path.startswith("resources.")}
    assert {path.partition(".")[0] for path in paths} | FROM_SOURCE == names(JobSpec)
    assert resources | {"gpus", "gpu_type"} == names(Resources)


def test_least_values_are_those_of_the_job() -> None:
    for parameter, member in submit_options.declared():
        option = next(mark for mark in parameter.annotation.__metadata__ if isinstance(mark, typer.models.ParameterInfo))
        if member is None or option.min is None:
            continue
        model = Resources if member.path.startswith("resources.") else JobSpec
        bounds = [mark.ge for mark in model.model_fields[parameter.name].metadata if hasattr(mark, "ge")]
        assert bounds == [option.min], parameter.name


def test_options_become_the_members_that_they_name() -> None:
    options = Options(
        "train.ipynb",
        env="sklearn",
        cpus=4,
        memory="8G",
        gpus="a100:2",
        tag=["team=a=b", "x="],
        after=["01kx", "01ky:any"],
        here=True,
        no_requeue=True,
    )
    assert options.members() == {
        "environment": "sklearn",
        "resources": {"cpus": 4, "memory": "8G", "gpus": 2, "gpu_type": "a100"},
        "tags": {"team": "a=b", "x": ""},
        "after": [{"job": "01kx"}, {"job": "01ky", "condition": "any"}],
        "scheduler": "local",
        "requeue": False,
    }
    validated({"notebook": "train.ipynb", **options.members()})


def test_options_that_are_not_given_leave_the_defaults_of_the_job() -> None:
    assert Options("train.ipynb", tag=[], after=[]).members() == {}


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"gpus": "many"}, "--gpus 'many' is not a number of GPUs"),
        ({"tag": ["team"]}, "--tag 'team' is not NAME=VALUE"),
        ({"here": True, "cluster": "mahti"}, "--here is this machine, not a cluster"),
    ],
)
def test_options_that_say_nothing_clear_are_refused(option: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Options("train.ipynb", **option).members()


def test_run_has_no_options_of_sweeps() -> None:
    run, sweep = ({parameter.name for parameter, _ in submit_options.declared(sweep=sweep)} for sweep in (False, True))
    assert sweep - run == {"grid", "random", "samples", "seed", "combinations", "csv", "max_parallel", "order_by"}
