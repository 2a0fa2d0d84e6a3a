"""``lossi run`` and ``lossi sweep``: from the command line to a job, watched until it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer

from lossi.cli import options as common, output, values
from lossi.cli.submit_options import Options, command
from lossi.contract.states import SUCCEEDED
from lossi.errors import InvalidInput, NotFound

NOTEBOOK = ".ipynb"
SCRIPTS = (".py", ".R", ".r")


def register(app: typer.Typer) -> None:
    """Add the two commands."""
    app.command("run")(command(run, sweep=False))
    app.command("sweep")(command(sweep, sweep=True))


def run(options: Options) -> None:
    """Run a notebook, a script or a command as a tracked job, and watch it until it ends.

    Examples: `lossi run train.ipynb -p lr=0.1`; `lossi run train.py -- --epochs 3`; `lossi run -- ./simulate --steps 100`.
    """
    project = _project_of(options)
    _go(project, options, _spec(project, options, _reader(project, options.source)))


def sweep(options: Options) -> None:
    """Run a notebook or script over many parameter combinations as one submission, and compare the runs at the end.

    Examples: `lossi sweep train.ipynb -g lr=0.1,0.01 -g depth=2,4,8`; `lossi sweep train.ipynb --samples 20 -r lr=loguniform(1e-4,1)`.
    """
    project = _project_of(options)
    reader = _reader(project, options.source)
    _go(project, options, {**_spec(project, options, reader), "sweep": _sweep(reader, options)})


def _project_of(options: Options) -> Any:
    """Return the project of ``--project``, of the notebook's folder or of the current one; a plain folder becomes a project."""
    from lossi import projects

    if options.project:
        return common.project(options.project)
    path = Path(options.source)
    folder = path.parent if options.source.endswith((NOTEBOOK, *SCRIPTS)) and path.exists() else Path()
    try:
        return projects.find(folder)
    except NotFound:
        project = projects.init(folder)
        output.note(f"{project.root} is now a project (its runs and jobs are in {project.home})")
        return project


def _spec(project: Any, options: Options, reader: values.Reader) -> dict[str, Any]:
    """Return the request, except for the sweep."""
    spec = options.members()
    spec["parameters"] = {**_parameter_file(options.params), **reader.values(values.pairs(options.param or (), "-p"))}
    arguments = options.arguments or []
    if options.source.endswith(NOTEBOOK):
        if arguments:
            raise InvalidInput(f"unexpected argument {arguments[0]!r}", hint="pass a notebook's parameters with -p NAME=VALUE")
        spec["notebook"] = _relative(project, options.source)
    elif options.source.endswith(SCRIPTS):
        spec |= {"script": _relative(project, options.source), "arguments": arguments}
    else:
        spec |= {"command": [options.source, *arguments], "working_directory": _relative(project, ".")}
    return spec


def _reader(project: Any, source: str) -> values.Reader:
    if not source.endswith(NOTEBOOK):
        return values.Reader(None)
    path = project.root / _relative(project, source)
    if not path.exists():
        raise NotFound(f"there is no notebook {source}", hint="name a notebook inside the project")
    return values.Reader(path)


def _relative(project: Any, source: str) -> str:
    """Return ``source`` as a path below the project, or unchanged if it is outside: `jobs` says what is wrong with it."""
    path = Path(source)
    absolute = path if path.is_absolute() else Path.cwd() / path
    for candidate in (absolute, absolute.resolve()):
        if candidate.is_relative_to(project.root):
            return candidate.relative_to(project.root).as_posix()
    return path.as_posix()


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


def _sweep(reader: values.Reader, options: Options) -> dict[str, Any]:
    kinds = {"--grid": options.grid, "--random": options.random, "--list": options.combinations, "--csv": options.csv}
    chosen = [option for option, value in kinds.items() if value]
    if len(chosen) != 1:
        raise InvalidInput(
            "a sweep needs one of --grid, --random, --list and --csv" + (f", not {' and '.join(chosen)}" if chosen else ""),
            hint="for example: lossi sweep train.ipynb -g lr=0.1,0.01 -g depth=2,4",
        )
    if options.grid:
        return {"grid": reader.grid(values.pairs(options.grid, "-g"))}
    if options.random:
        random = reader.random(values.pairs(options.random, "-r"))
        return {"random": random, "samples": options.samples or 10, "seed": options.seed}
    path = options.combinations or options.csv
    assert path is not None
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read {path}", why=str(error), hint=f"{chosen[0]} takes a UTF-8 text file") from None
    if options.csv:
        return {"csv": text}
    try:
        if text.lstrip().startswith("["):
            return {"list": json.loads(text)}
        return {"list": [json.loads(line) for line in text.splitlines() if line.strip()]}
    except ValueError as error:
        raise InvalidInput(
            f"{path} is not JSON", why=str(error), hint="write one JSON object per line, or one array of objects"
        ) from None


def _go(project: Any, options: Options, data: dict[str, Any]) -> None:
    """Preview or submit the request ``data``, and watch the job unless it is detached."""
    from lossi import jobs
    from lossi.cli import follow

    spec = jobs.validated(data)
    if options.preview:
        preview = jobs.preview(project, spec)
        output.emit(preview, options.as_json, lambda: _show_preview(preview))
        return
    job = jobs.submit(project, spec, idempotency_key=options.idempotency_key)
    tasks = f"{job.tasks} task{'s' * (job.tasks != 1)}"
    if options.detach:
        output.emit(
            job, options.as_json, lambda: output.say(f"{job.id}  {tasks} submitted; watch: lossi jobs show {job.id} --follow")
        )
        return
    if not options.as_json:
        output.note(f"job {job.id}: {job.name}, {tasks}")
    job = follow.until_ended(project, job.id)
    if options.as_json:
        from lossi import refresh

        refresh.update_project(project, everything=True)
    output.emit(job, options.as_json, lambda: follow.show_result(project, job, order_by=options.order_by))
    if job.state != SUCCEEDED:
        raise typer.Exit(1)


def _show_preview(shown: Any) -> None:
    output.say(f"tasks: {shown.total}")
    for number, parameters in enumerate(shown.tasks):
        output.say(f"  {number}: {json.dumps(parameters, ensure_ascii=False)}")
    for warning in shown.warnings:
        output.say(f"warning: {warning}")
    if shown.expected_start:
        output.say(f"would start: {shown.expected_start[:19].replace('T', ' ')} UTC, the scheduler estimates")
    output.say("command line: " + json.dumps(shown.argv, ensure_ascii=False))
    output.say("script:")
    output.say(shown.script)
