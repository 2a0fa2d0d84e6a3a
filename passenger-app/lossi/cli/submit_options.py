"""The options of ``lossi run`` and ``lossi sweep``, declared once: help, default and place in the JobSpec.

The commands take one `Options`; `command` gives them the signature that Typer reads. Annotations are values here, not text, so
that `dataclasses.fields` has them.
"""

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from lossi.cli import options, values
from lossi.errors import InvalidInput

SWEEP_ONLY = object()
"""Marks an option that `lossi run` does not have."""


@dataclass(frozen=True)
class Member:
    """Where the value of an option goes in the JobSpec: a dotted path, and how its text is read.

    A ``read`` that returns a dict adds its entries to the object at ``path``.
    """

    path: str
    read: Callable[[Any], Any] = lambda value: value


def _gpus(text: str) -> dict[str, Any]:
    kind, _, number = text.rpartition(":")
    if not number.isdigit():
        raise InvalidInput(f"--gpus {text!r} is not a number of GPUs", hint="write --gpus 2 or --gpus a100:2")
    return {"gpus": int(number)} | ({"gpu_type": kind} if kind else {})


def _after(texts: list[str]) -> list[dict[str, str]]:
    parts = [text.partition(":") for text in texts]
    return [{"job": job} | ({"condition": condition} if condition else {}) for job, _, condition in parts]


Texts = list[str] | None


@dataclass(frozen=True)
class Options:
    """What ``lossi run`` and ``lossi sweep`` were given, in the order in which ``--help`` shows it."""

    source: Annotated[
        str, typer.Argument(help="Notebook (.ipynb), script (.py, .R), or a command after `--`.", show_default=False)
    ]
    arguments: Annotated[Texts, typer.Argument(help="Arguments of the script or command.", show_default=False)] = None
    grid: Annotated[
        Texts,
        typer.Option("-g", "--grid", metavar="NAME=A,B,…", help="Values to combine with all others; repeatable."),
        SWEEP_ONLY,
    ] = None
    random: Annotated[
        Texts,
        typer.Option(
            "-r",
            "--random",
            metavar="NAME=DIST",
            help="Draw from uniform(a,b), loguniform(a,b), int(a,b) or choice(a,b,…); repeatable.",
        ),
        SWEEP_ONLY,
    ] = None
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Number of combinations to draw with --random."), SWEEP_ONLY
    ] = None
    seed: Annotated[int, typer.Option(help="Seed of --random: the same seed draws the same combinations."), SWEEP_ONLY] = 0
    combinations: Annotated[
        Path | None,
        typer.Option("--list", metavar="FILE", help="Combinations as JSON lines or a JSON array of objects."),
        SWEEP_ONLY,
    ] = None
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Combinations as CSV with parameter names in the first row."),
        SWEEP_ONLY,
    ] = None
    param: Annotated[
        Texts, typer.Option("-p", "--param", metavar="NAME=VALUE", help="A parameter of the notebook or script; repeatable.")
    ] = None
    params: Annotated[
        str | None, typer.Option("--params", metavar="FILE", help="Parameters as one JSON object in a file; - reads stdin.")
    ] = None
    env: Annotated[
        str | None,
        typer.Option("-e", "--env", help="Environment from the catalogue; see `lossi env list`."),
        Member("environment"),
    ] = None
    cpus: Annotated[int | None, typer.Option("-c", "--cpus", min=1, help="Cores per task."), Member("resources.cpus")] = None
    memory: Annotated[
        str | None,
        typer.Option("-m", "--memory", help="Memory per task, such as 8G; plain numbers are MiB."),
        Member("resources.memory"),
    ] = None
    gpus: Annotated[
        str | None, typer.Option("--gpus", help="GPUs per task: a number, or TYPE:NUMBER."), Member("resources", _gpus)
    ] = None
    time: Annotated[
        str | None,
        typer.Option("-t", "--time", help="Time limit per task, in Slurm's format: 30, 1:30:00, 2-00:00:00."),
        Member("resources.time"),
    ] = None
    partition: Annotated[str | None, typer.Option(help="Partition."), Member("resources.partition")] = None
    account: Annotated[str | None, typer.Option("-A", "--account", help="Account."), Member("resources.account")] = None
    qos: Annotated[str | None, typer.Option(help="Quality of service."), Member("resources.qos")] = None
    nodes: Annotated[
        int | None,
        typer.Option("-N", "--nodes", min=1, help="Nodes per task, for scripts and commands; each gets cores, memory and GPUs."),
        Member("resources.nodes"),
    ] = None
    constraint: Annotated[
        str | None,
        typer.Option("-C", "--constraint", help="Required node features, in Slurm's format."),
        Member("resources.constraint"),
    ] = None
    name: Annotated[str | None, typer.Option("-n", "--name", help="Name of the job."), Member("name")] = None
    experiment: Annotated[
        str | None,
        typer.Option("-x", "--experiment", help="MLflow experiment (default: the notebook's name)."),
        Member("experiment"),
    ] = None
    tag: Annotated[
        Texts,
        typer.Option("--tag", metavar="KEY=VALUE", help="Tag for every run; repeatable."),
        Member("tags", lambda texts: values.pairs(texts, "--tag")),
    ] = None
    max_parallel: Annotated[
        int | None, typer.Option("--max-parallel", min=1, help="Most tasks to run at once."), Member("max_parallel"), SWEEP_ONLY
    ] = None
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="Cluster to run on; see `lossi clusters list`."), Member("cluster")
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", help="How to submit: local, slurm_cli, slurm_rest or slurm_pyslurm."),
        Member("scheduler"),
    ] = None
    here: Annotated[
        bool,
        typer.Option("--here", help="Run on this machine, or inside this shell's allocation, instead of queueing."),
        Member("scheduler", lambda _: "local"),
    ] = False
    after: Annotated[
        Texts,
        typer.Option(
            "--after",
            metavar="JOB[:ok|any|not_ok]",
            help="Start when that job has ended (default: and only if it succeeded); repeatable.",
        ),
        Member("after", _after),
    ] = None
    no_requeue: Annotated[
        bool,
        typer.Option("--no-requeue", help="Do not restart a task after a node failure or preemption."),
        Member("requeue", lambda _: False),
    ] = False
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", help="Repeated calls with the same key submit one job.")
    ] = None
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return after submission; the job goes on.")] = False
    preview: Annotated[bool, typer.Option("--preview", help="Show script, command line and tasks; submit nothing.")] = False
    order_by: Annotated[
        str,
        typer.Option("--order-by", help="Order of the final comparison, as in MLflow: 'metrics.accuracy DESC'."),
        SWEEP_ONLY,
    ] = ""
    project: options.Project = None
    as_json: options.Json = False

    def members(self) -> dict[str, Any]:
        """Return the part of the JobSpec that follows from single options."""
        if self.here and (self.cluster or self.scheduler):
            raise InvalidInput("--here is this machine, not a cluster", hint="leave out --here, or --cluster and --scheduler")
        spec: dict[str, Any] = {}
        for parameter, member in declared():
            value = getattr(self, parameter.name)
            if member is None or value is None or value is False or value == []:
                continue
            *parents, last = member.path.split(".")
            place = spec
            for parent in parents:
                place = place.setdefault(parent, {})
            read = member.read(value)
            place[last] = {**place.get(last, {}), **read} if isinstance(read, dict) else read
        return spec


def declared(*, sweep: bool = True) -> list[tuple[inspect.Parameter, Member | None]]:
    """Return each option of ``lossi sweep``, or of ``lossi run``, as a parameter of the command, and its JobSpec member."""
    parameters = []
    for field in dataclasses.fields(Options):
        marks = field.type.__metadata__  # type: ignore[union-attr]
        if sweep or SWEEP_ONLY not in marks:
            default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            parameter = inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type)
            parameters.append((parameter, next((mark for mark in marks if isinstance(mark, Member)), None)))
    return parameters


def command(function: Callable[[Options], None], *, sweep: bool) -> Callable[..., None]:
    """Return ``function`` as Typer wants it: with one parameter for each option."""

    def run(**arguments: Any) -> None:
        function(Options(**arguments))

    signature = inspect.Signature([parameter for parameter, _ in declared(sweep=sweep)])
    run.__doc__ = function.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
    run.__signature__ = signature  # type: ignore[attr-defined]
    return run
