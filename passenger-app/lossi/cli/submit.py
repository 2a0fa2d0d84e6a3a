"""``lossi run`` and ``lossi sweep``: from words on the command line to a job, watched until it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lossi.cli import options, output, submit_options as shared, values
from lossi.errors import InvalidInput, NotFound


def register(app: typer.Typer) -> None:
    """Add the two commands."""
    app.command("run")(run)
    app.command("sweep")(sweep)


def run(
    source: shared.Source,
    arguments: shared.Arguments = None,
    param: shared.Parameters = None,
    params: shared.ParameterFile = None,
    env: shared.Environment = None,
    cpus: shared.Cpus = None,
    memory: shared.Memory = None,
    gpus: shared.Gpus = None,
    time: shared.Time = None,
    partition: shared.Partition = None,
    account: shared.Account = None,
    qos: shared.Qos = None,
    nodes: shared.Nodes = None,
    constraint: shared.Constraint = None,
    name: shared.Name = None,
    experiment: shared.Experiment = None,
    tag: shared.Tags = None,
    cluster: shared.Cluster = None,
    scheduler: shared.SchedulerName = None,
    here: shared.Here = False,
    after: shared.After = None,
    no_requeue: shared.NoRequeue = False,
    idempotency_key: shared.Key = None,
    detach: shared.Detach = False,
    preview: shared.DryRun = False,
    project: options.Project = None,
    as_json: options.Json = False,
) -> None:
    """Run a notebook, a script or a command as a tracked job, and watch it until it ends.

    Examples: `lossi run train.ipynb -p lr=0.1`; `lossi run train.py -- --epochs 3`; `lossi run -- ./simulate --steps 100`.
    """
    found = _project_of(source, project)
    spec = _spec(found, source, arguments, param, params, env, name, experiment, tag, None)
    spec["resources"] = _resources(cpus, memory, gpus, time, partition, account, qos, nodes, constraint)
    spec |= _place(cluster, scheduler, here, after, no_requeue)
    _go(found, spec, idempotency_key, detach, preview, as_json)


def sweep(
    source: shared.Source,
    arguments: shared.Arguments = None,
    grid: Annotated[
        list[str] | None,
        typer.Option("-g", "--grid", metavar="NAME=A,B,…", help="Values to combine with all others; again for each."),
    ] = None,
    random: Annotated[
        list[str] | None,
        typer.Option(
            "-r",
            "--random",
            metavar="NAME=DIST",
            help="Draw from uniform(a,b), loguniform(a,b), int(a,b) or choice(a,b,…); again for each.",
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option("--samples", min=1, help="How many combinations to draw with --random.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of --random: the same seed draws the same combinations.")] = 0,
    combinations: Annotated[
        Path | None, typer.Option("--list", metavar="FILE", help="Combinations as JSON lines or a JSON array of objects.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Combinations as CSV with the parameters' names in the first row."),
    ] = None,
    param: shared.Parameters = None,
    params: shared.ParameterFile = None,
    env: shared.Environment = None,
    cpus: shared.Cpus = None,
    memory: shared.Memory = None,
    gpus: shared.Gpus = None,
    time: shared.Time = None,
    partition: shared.Partition = None,
    account: shared.Account = None,
    qos: shared.Qos = None,
    nodes: shared.Nodes = None,
    constraint: shared.Constraint = None,
    name: shared.Name = None,
    experiment: shared.Experiment = None,
    tag: shared.Tags = None,
    max_parallel: shared.MaxParallel = None,
    cluster: shared.Cluster = None,
    scheduler: shared.SchedulerName = None,
    here: shared.Here = False,
    after: shared.After = None,
    no_requeue: shared.NoRequeue = False,
    idempotency_key: shared.Key = None,
    detach: shared.Detach = False,
    preview: shared.DryRun = False,
    order_by: Annotated[
        str, typer.Option("--order-by", help="Order of the comparison at the end, as in MLflow: 'metrics.accuracy DESC'.")
    ] = "",
    project: options.Project = None,
    as_json: options.Json = False,
) -> None:
    """Run a notebook or script over many parameter combinations as one submission, and compare the runs at the end.

    Examples: `lossi sweep train.ipynb -g lr=0.1,0.01 -g depth=2,4,8`; `lossi sweep train.ipynb --samples 20 -r lr=loguniform(1e-4,1)`.
    """
    found = _project_of(source, project)
    spec = _spec(found, source, arguments, param, params, env, name, experiment, tag, max_parallel)
    spec["resources"] = _resources(cpus, memory, gpus, time, partition, account, qos, nodes, constraint)
    spec |= _place(cluster, scheduler, here, after, no_requeue)
    spec["sweep"] = _sweep(_reader(found, source), grid, random, samples, seed, combinations, csv)
    _go(found, spec, idempotency_key, detach, preview, as_json, order_by=order_by)


def _project_of(source: str, project: str | None) -> Any:
    """The project that is named, or around the notebook, or around the current folder; a bare folder becomes one."""
    from lossi import projects

    if project:
        return options.project(project)
    start = Path(source).parent if source.endswith((".ipynb", ".py", ".R", ".r")) and Path(source).exists() else Path()
    try:
        return projects.find(start)
    except NotFound:
        made = projects.init(start)
        output.note(f"{made.root} is a project now (its runs and jobs lie in {made.home})")
        return made


def _spec(
    project: Any,
    source: str,
    arguments: list[str] | None,
    param: list[str] | None,
    params: str | None,
    env: str | None,
    name: str | None,
    experiment: str | None,
    tag: list[str] | None,
    max_parallel: int | None,
) -> dict[str, Any]:
    reader = _reader(project, source)
    spec: dict[str, Any] = {
        "parameters": {**_parameter_file(params), **reader.values(dict(_pair(text, "-p") for text in param or ()))},
        "tags": dict(_pair(text, "--tag") for text in tag or ()),
    }
    if source.endswith(".ipynb"):
        if arguments:
            raise InvalidInput(f"unexpected argument {arguments[0]!r}", hint="parameters of a notebook go with -p NAME=VALUE")
        spec["notebook"] = _relative(project, source)
    elif source.endswith((".py", ".R", ".r")):
        spec["script"] = _relative(project, source)
        spec["arguments"] = arguments or []
    else:
        spec["command"] = [source, *(arguments or ())]
        spec["working_directory"] = _relative(project, ".")
    for key, value in (
        ("environment", env),
        ("name", name),
        ("experiment", experiment),
        ("max_parallel", max_parallel),
    ):
        if value is not None:
            spec[key] = value
    return spec


def _reader(project: Any, source: str) -> values.Reader:
    if not source.endswith(".ipynb"):
        return values.Reader(None)
    path = project.root / _relative(project, source)
    if not path.exists():
        raise NotFound(f"there is no notebook {source}", hint="name a notebook inside the project")
    return values.Reader(path)


def _relative(project: Any, source: str) -> str:
    """Return ``source`` as a path below the project; what is not there is left to the room to explain."""
    path = Path(source)
    absolute = path if path.is_absolute() else Path.cwd() / path
    for candidate in (absolute, absolute.resolve()):
        if candidate.is_relative_to(project.root):
            return candidate.relative_to(project.root).as_posix()
    return path.as_posix()


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidInput(f"{option} {text!r} is not NAME=VALUE", hint=f"write it as {option} name=value")
    return name, value


def _parameter_file(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
        data = json.loads(text)
    except FileNotFoundError:
        raise InvalidInput(f"there is no file {path}", hint="--params takes a file with one JSON object") from None
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{path} cannot be read as JSON", why=str(error), hint="--params takes a file with one JSON object"
        ) from None
    if not isinstance(data, dict):
        raise InvalidInput(f"{path} does not hold a JSON object", hint='write it as {"name": value, …}')
    return data


def _resources(
    cpus: int | None,
    memory: str | None,
    gpus: str | None,
    time: str | None,
    partition: str | None,
    account: str | None,
    qos: str | None,
    nodes: int | None,
    constraint: str | None,
) -> dict[str, Any]:
    given: dict[str, Any] = {
        "cpus": cpus,
        "memory": memory,
        "time": time,
        "partition": partition,
        "account": account,
        "qos": qos,
        "nodes": nodes,
        "constraint": constraint,
    }
    if gpus is not None:
        kind, _, number = gpus.rpartition(":")
        if not number.isdigit():
            raise InvalidInput(f"--gpus {gpus!r} is not a number of GPUs", hint="write --gpus 2 or --gpus a100:2")
        given.update(gpus=int(number), gpu_type=kind or None)
    return {key: value for key, value in given.items() if value is not None}


def _place(cluster: str | None, scheduler: str | None, here: bool, after: list[str] | None, no_requeue: bool) -> dict[str, Any]:
    if here and (cluster or scheduler):
        raise InvalidInput("--here is this machine, not a cluster", hint="leave out --here, or --cluster and --scheduler")
    found: dict[str, Any] = {"cluster": cluster, "scheduler": "local" if here else scheduler}
    if after:
        found["after"] = [
            {"job": job, **({"condition": condition} if condition else {})}
            for job, _, condition in (text.partition(":") for text in after)
        ]
    if no_requeue:
        found["requeue"] = False
    return {key: value for key, value in found.items() if value is not None}


def _sweep(
    reader: values.Reader,
    grid: list[str] | None,
    random: list[str] | None,
    samples: int | None,
    seed: int,
    combinations: Path | None,
    csv: Path | None,
) -> dict[str, Any]:
    chosen = [name for name, value in (("--grid", grid), ("--random", random), ("--list", combinations), ("--csv", csv)) if value]
    if len(chosen) != 1:
        raise InvalidInput(
            "a sweep needs one of --grid, --random, --list and --csv" + (f", not {' and '.join(chosen)}" if chosen else ""),
            hint="for example: lossi sweep train.ipynb -g lr=0.1,0.01 -g depth=2,4",
        )
    if grid:
        return {"grid": reader.grid(dict(_pair(text, "-g") for text in grid))}
    if random:
        return {"random": reader.random(dict(_pair(text, "-r") for text in random)), "samples": samples or 10, "seed": seed}
    path = combinations or csv
    assert path is not None
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read {path}", why=str(error), hint=f"{chosen[0]} takes a UTF-8 text file") from None
    if csv:
        return {"csv": text}
    try:
        data = (
            json.loads(text)
            if text.lstrip().startswith("[")
            else [json.loads(line) for line in text.splitlines() if line.strip()]
        )
    except ValueError as error:
        raise InvalidInput(
            f"{path} is not JSON", why=str(error), hint="one JSON object per line, or one array of objects"
        ) from None
    return {"list": data}


def _go(
    project: Any, data: dict[str, Any], key: str | None, detach: bool, preview: bool, as_json: bool, *, order_by: str = ""
) -> None:
    from lossi import jobs
    from lossi.cli import follow

    spec = jobs.validated(data)
    if preview:
        shown = jobs.preview(project, spec)
        output.emit(shown, as_json, lambda: _show_preview(shown))
        return
    job = jobs.submit(project, spec, idempotency_key=key)
    if detach:
        output.emit(
            job,
            as_json,
            lambda: output.say(
                f"{job.id}  {job.tasks} task{'s' * (job.tasks != 1)} submitted; watch: lossi jobs show {job.id} --follow"
            ),
        )
        return
    if not as_json:
        output.note(f"job {job.id}: {job.name}, {job.tasks} task{'s' * (job.tasks != 1)}")
    job = follow.until_ended(project, job.id)

    def render() -> None:
        follow.show_result(project, job, order_by=order_by)

    if as_json:
        from lossi import refresh

        refresh.look(project, everything=True)
    output.emit(job, as_json, render)
    if job.state != "succeeded":
        raise typer.Exit(1)


def _show_preview(shown: Any) -> None:
    output.say(f"tasks: {shown.total}")
    for number, parameters in enumerate(shown.tasks):
        output.say(f"  {number}: {json.dumps(parameters, ensure_ascii=False)}")
    for warning in shown.warnings:
        output.say(f"warning: {warning}")
    if shown.expected_start:
        output.say(f"would start: {shown.expected_start[:19].replace('T', ' ')} UTC, as the scheduler sees it now")
    output.say("command line: " + json.dumps(shown.argv, ensure_ascii=False))
    output.say("script:")
    output.say(shown.script)
