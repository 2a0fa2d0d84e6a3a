"""``lossi runs``: list, show, compare and export what MLflow tracked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lossi.cli import options, output
from lossi.errors import InvalidInput

if TYPE_CHECKING:
    from lossi.projects import Project
    from lossi.tracking import Comparison, RunDetail, RunTable

app = typer.Typer(no_args_is_help=True)

RunIds = Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Ids of runs, or their first characters.")]
Filter = Annotated[
    str,
    typer.Option(
        "--filter",
        "-f",
        help="In MLflow's language: \"metrics.acc > 0.9 AND params.model = 'svc'\"; facts of the task: job.state, job.elapsed_s …",
    ),
]
OrderBy = Annotated[
    list[str] | None,
    typer.Option("--order-by", "-o", help='For example "metrics.acc DESC"; repeatable (default: newest first).'),
]
ExperimentNames = Annotated[
    list[str] | None, typer.Option("--experiment", "-x", help="Id or name of an experiment; repeatable (default: all).")
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", "-c", help="run_id, params.lr, metrics.*, job.state …; repeatable (default: what fits)."),
]
ViewName = Annotated[str, typer.Option("--view", help="active, deleted or all.")]
JobName = Annotated[
    str | None,
    typer.Option("--job", "-j", metavar="JOB", help="Runs of this job, as in `lossi jobs`; `last` is the newest."),
]
MOST_COMPARED = 10_000
MOST_SHOWN = 10
"""Params and metrics in a table on a terminal."""


@app.command("list")
def list_runs(
    filter: Filter = "",
    order_by: OrderBy = None,
    experiment: ExperimentNames = None,
    column: Columns = None,
    view: ViewName = "active",
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, max=100_000, help="At most this many.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Continue after this `next_cursor`.")] = None,
    project: options.Project = None,
    as_json: options.Json = False,
) -> None:
    """List runs, filtered and ordered in MLflow's own language."""
    from lossi import tracking

    table = tracking.search(
        _ingested(project),
        filter=filter,
        order_by=order_by or (),
        experiments=experiment or None,
        view=view,  # type: ignore[arg-type]  # checked there
        limit=limit,
        cursor=cursor,
        columns=column or None,
    )
    output.emit(table, as_json, lambda: _show_table(table, all_columns=bool(column)))


@app.command("show")
def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, or its first characters.")],
    project: options.Project = None,
    as_json: options.Json = False,
) -> None:
    """Show everything known about one run."""
    from lossi import tracking

    current = _ingested(project)
    [run_id] = tracking.resolve(current, [run])
    detail = tracking.run(current, run_id)
    output.emit(detail, as_json, lambda: _show_detail(detail))


@app.command("compare")
def compare(
    runs: RunIds = None,
    job: JobName = None,
    filter: Filter = "",
    order_by: OrderBy = None,
    project: options.Project = None,
    as_json: options.Json = False,
) -> None:
    """Show what differs between runs and what is equal; warn if more than the parameters differs."""
    from lossi import tracking

    current = _ingested(project)
    run_ids = tracking.resolve(current, runs or [])
    if job or filter or order_by:
        run_ids += _select(current, job, filter, order_by or [])
    if not run_ids:
        raise InvalidInput("no run to compare", hint="pass run ids, --job or --filter; `lossi runs list` shows the runs")
    comparison = tracking.compare(current, run_ids)
    output.emit(comparison, as_json, lambda: _show_comparison(comparison))


@app.command("export")
def export(
    filter: Filter = "",
    order_by: OrderBy = None,
    experiment: ExperimentNames = None,
    column: Columns = None,
    view: ViewName = "active",
    format: Annotated[str, typer.Option("--format", help="csv or json.")] = "csv",
    to: Annotated[Path | None, typer.Option("--output", "-O", help="File to write (default: standard output).")] = None,
    project: options.Project = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Write all matching runs as CSV or JSON."""
    from lossi import tracking
    from lossi.files import atomic

    pieces = tracking.export(
        _ingested(project),
        filter=filter,
        order_by=order_by or (),
        experiments=experiment or None,
        view=view,  # type: ignore[arg-type]  # checked there
        columns=column or None,
        format="json" if as_json else format,  # type: ignore[arg-type]  # checked there
    )
    if to is None:
        sys.stdout.flush()
        for piece in pieces:
            sys.stdout.buffer.write(piece.encode("utf-8", "replace"))
        sys.stdout.buffer.flush()
    else:
        with atomic.replacing(to) as stream:
            for piece in pieces:
                stream.write(piece.encode("utf-8", "replace"))


def _ingested(name: str | None) -> Project:
    """Return the project, with what its tasks have published; print what could not be ingested."""
    from lossi import refresh

    project = options.project(name)
    for problem in refresh.update_project(project, everything=True).problems:
        reason = f": {problem.why}" if problem.why else ""
        output.note(f"{problem.what}{reason}" + (f" ({problem.hint})" if problem.hint else ""))
    return project


def _select(project: Project, job: str | None, filter: str, order_by: list[str]) -> list[str]:
    from lossi import tracking
    from lossi.cli.naming import identify

    conditions = [filter] if filter else []
    if job:
        conditions.append(f"tags.`lossi.job_id` = '{identify(project, job)}'")
    table = tracking.search(
        project, filter=" AND ".join(conditions), order_by=order_by or ["start_time ASC"], limit=MOST_COMPARED, columns=["run_id"]
    )
    return [str(run_id) for run_id in table.columns["run_id"]]


def _note_state(stale: bool, revision: str | None) -> None:
    if stale:
        output.note("the store is locked by a writer: this is its last committed state")
    if revision:
        output.note(f"the store has schema revision {revision}, which this Lossi does not know: it is read, never written")


def _show_table(table: RunTable, *, all_columns: bool) -> None:
    """Print runs as rows; by default the run, the params that differ between runs, and the metrics."""
    _note_state(table.stale, table.read_only_revision)
    shown: dict[str, list[Any]] = dict(table.columns) if all_columns else _distinguishing(table.columns)
    rows = zip(*([_value(value) for value in column] for column in shown.values()), strict=True)
    heads = [name.partition(".")[2] if name.startswith(("params.", "metrics.")) else name for name in shown]
    right = [head for head, name in zip(heads, shown, strict=True) if name.startswith("metrics.")]
    output.show_table(heads, rows, right=right, empty="No run matches." if table.total == 0 else "No more runs.")
    number = len(next(iter(shown.values()), []))
    if table.next_cursor:
        output.note(f"{number} of {table.total} runs; more: --cursor {table.next_cursor}")


def _distinguishing(columns: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the columns that distinguish the runs of a page, as many as fit on a terminal."""
    several = len(columns["run_id"]) > 1
    params = [name for name in columns if name.startswith("params.") and not (several and len(set(columns[name])) == 1)]
    metrics = [name for name in columns if name.startswith("metrics.")]
    states = columns.get("job.state", [None] * len(columns["run_id"]))
    result: dict[str, list[Any]] = {
        "run": [str(run_id)[:8] for run_id in columns["run_id"]],
        "name": columns["run_name"],
        "state": [state or str(status).lower() for state, status in zip(states, columns["status"], strict=True)],
        "started (UTC)": [_time(start) for start in columns["start_time"]],
    }
    names = params + metrics
    if output.console().is_terminal and len(names) > MOST_SHOWN:
        names = params[: max(MOST_SHOWN - len(metrics), MOST_SHOWN // 2)]
        names += metrics[: MOST_SHOWN - len(names)]
        output.note(f"{len(params) + len(metrics) - len(names)} columns omitted: select with --column, or see all with --json")
    return result | {name: columns[name] for name in names}


def _show_detail(detail: RunDetail) -> None:
    _note_state(detail.stale, detail.read_only_revision)
    output.say(f"run {detail.run_id}  {detail.run_name or ''}  {(detail.status or 'unknown').lower()}")
    output.say(f"  experiment  {detail.experiment or detail.experiment_id}")
    output.say(f"  started     {_time(detail.start_time)}   ended {_time(detail.end_time) or '-'}")
    output.say(f"  artifacts   {detail.artifact_uri}")
    if detail.job:
        output.say(f"  task        {detail.job['job_id']}.{detail.job['task']}  {detail.job['state'] or ''}")
    if detail.params:
        output.show_table(("parameter", "value"), detail.params.items())
    if detail.metrics:
        rows = [
            (key, *(_value(value) for value in (m.last, m.last_step, m.min, m.min_step, m.max, m.max_step, m.count)))
            for key, m in detail.metrics.items()
        ]
        output.show_table(
            ("metric", "last", "at step", "min", "at step", "max", "at step", "points"),
            rows,
            right=("last", "at step", "min", "max", "points"),
        )
    if detail.datasets:
        output.show_table(("dataset", "digest", "used for"), [(d.name, d.digest, d.context) for d in detail.datasets])
    if detail.models:
        output.show_table(("model", "id", "type"), [(m.name, m.model_id, m.model_type) for m in detail.models])
    if detail.tags:
        output.show_table(("tag", "value"), [(key, _value(value)) for key, value in detail.tags.items()])


def _show_comparison(comparison: Comparison) -> None:
    """Print one row per run with what differs, then what is equal, then the warnings."""
    from lossi.projects import facts

    _note_state(comparison.stale, comparison.read_only_revision)
    metrics = {key: metric for key, metric in comparison.metrics.items() if metric.differs or len(comparison.runs) == 1}
    brief = facts.shown_in("brief")  # what a terminal has room for; `--json` has all
    of_tasks = {
        name: values
        for name, values in comparison.job.items()
        if name in brief and (len(set(values)) > 1 or len(values) == 1) and any(values)
    }
    heads = ["run", *(name.removeprefix("params.") for name in comparison.differing), *metrics, *of_tasks]
    rows = [
        [
            run.run_id[:8],
            *(_value(values[row]) for values in comparison.differing.values()),
            *(_value(metric.last[row]) for metric in metrics.values()),
            *(_value(values[row]) for values in of_tasks.values()),
        ]
        for row, run in enumerate(comparison.runs)
    ]
    output.show_table(heads, rows, right=[*metrics, *(name for name in of_tasks if facts.sql_type(name) != "TEXT")])
    equal = [f"{name.removeprefix('params.')} = {_value(value)}" for name, value in comparison.equal.items()]
    equal += [f"{key} = {_value(metric.last[0])}" for key, metric in comparison.metrics.items() if key not in metrics]
    equal += [
        f"{name} = {_value(values[0])}" for name, values in comparison.job.items() if name in brief and name not in of_tasks
    ]
    if equal:
        output.say("equal in all: " + ", ".join(equal))
    for warning in comparison.warnings:
        output.say(f"warning: {warning.message}")


def _value(value: Any) -> str:
    """Return a value for a table: a short number or one line, empty if there is none."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    line = " ".join(str(value).split())
    return line if len(line) <= 80 else line[:79] + "…"


def _time(milliseconds: Any) -> str:
    import datetime

    if not isinstance(milliseconds, int):
        return ""
    try:
        return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return str(milliseconds)
