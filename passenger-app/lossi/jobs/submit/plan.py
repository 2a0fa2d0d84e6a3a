"""From a request to a decided job: everything that can be refused is refused here, before anything is written.

Reads the notebook, the catalogue and the settings. Knows nothing of job directories beyond the path they will have.
"""

from __future__ import annotations

import os
import pwd
import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import lossi
from lossi import environments, notebooks, settings, units
from lossi.contract.records import PreparedJob, ResolvedEnvironment, Resources, TrackingTarget
from lossi.errors import InvalidInput, LossiError, NotSupported, Unavailable
from lossi.jobs import schedulers, times, ulid
from lossi.jobs.submit import placing, space_check, sweep
from lossi.jobs.submit.code import Code
from lossi.jobs.submit.spec import JobSpec
from lossi.jsonable import from_text
from lossi.projects import Project

LANGUAGES = {".py": "python", ".ipy": "python", ".r": "r", ".sh": "shell"}
"""Languages of scripts by suffix."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FREE_NAME = re.compile(r"[^\x00-\x1f\x7f=]{1,200}")

Parameters = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A job that can be prepared.

    Attributes
    ----------
    job
        As it will be in ``spec.json``, without what only exists after preparing: code, experiment id, digests.
    rows
        Parameters of each task, checked.
    warnings
        What will not be as the user may expect.
    mounts
        Folders of the cluster that a container sees.
    """

    job: PreparedJob
    rows: Sequence[Parameters]
    scheduler: schedulers.Scheduler
    warnings: list[str] = field(default_factory=list)
    mounts: Sequence[environments.Mount] = ()

    def directory(self, project: Project) -> Path:
        """Return the job directory."""
        return project.jobs / self.job.id


def make(
    project: Project,
    spec: JobSpec,
    code: Code,
    *,
    dependency: str | None = None,
    resubmitted_from: str | None = None,
    idempotency_key: str | None = None,
) -> Plan:
    """Decide everything about a job; ``dependency`` is what it waits for, in the scheduler's words.

    Raises
    ------
    InvalidInput, NotFound, Forbidden, NotSupported, Unavailable
        When the job cannot run as asked for; says what to change.
    """
    scheduler = schedulers.get(spec.scheduler, spec.cluster)
    warnings: list[str] = []
    facts = _source(spec, code, warnings)
    _check_total(spec)
    rows = list(_rows(spec, facts))
    resources = spec.resources.record()
    place = placing.of(scheduler, resources)
    environment = _environment(project, spec, place, warnings)
    _check_resources(resources, scheduler, warnings)
    if resources.nodes > 1 and spec.notebook is not None:
        raise InvalidInput(
            f"the job asks for {resources.nodes} nodes, a notebook runs on one",
            hint="run a script or a command over several nodes: lossi notebook script makes one of a notebook",
        )
    warnings += space_check.check_space(project, len(rows))
    experiment = spec.experiment or facts.stem
    parallel = min(len(rows), spec.max_parallel or len(rows))
    job = PreparedJob(
        id=ulid.new(),
        name=spec.name or facts.stem,
        kind=spec.kind,
        project=str(project.root),
        user=user_name(),
        created=times.utc(time.time()),
        source=facts.path,
        command=list(spec.command or spec.arguments),
        working_directory=facts.folder,
        language=facts.language,
        kernel=facts.kernel,
        tasks=len(rows),
        sweep=None if spec.sweep is None else spec.sweep.model_dump(),
        swept=[] if spec.sweep is None else list(spec.sweep.names),
        max_parallel=spec.max_parallel,
        requeue=spec.requeue and scheduler.capabilities.requeue,
        dependency=dependency,
        setup=place.setup,
        scratch=place.scratch,
        defaults=_defaults(facts),
        environment=environment,
        resources=resources,
        tracking=TrackingTarget(experiment, server_uri=_server(), publish_interval_s=publish_interval(parallel)),
        tags=dict(spec.tags),
        request={**spec.model_dump(), "sweep": None, "scheduler": scheduler.name, "cluster": scheduler.cluster},
        idempotency_key=idempotency_key,
        resubmitted_from=resubmitted_from,
        output_limit_mb=settings.load().output_limit_mb,
        lossi_version=lossi.__version__,
    )
    return Plan(job, rows, scheduler, warnings, mounts=place.mounts)


def publish_interval(parallel: int) -> float:
    """Return the seconds between snapshots of a task: 10 up to 50 tasks at once, growing to 60 at 1,000."""
    return 10.0 + 50.0 * min(max(parallel - 50, 0), 950) / 950


def user_name() -> str:
    """Return the name of the user whom the process belongs to."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


@dataclass(frozen=True)
class _Facts:
    """What is known of the thing to run."""

    path: str | None
    folder: str
    stem: str
    language: str
    kernel: str | None = None
    declared: notebooks.Parameters | None = None


def _source(spec: JobSpec, code: Code, warnings: list[str]) -> _Facts:
    if spec.command is not None:
        stem = PurePosixPath(spec.command[0]).name or "command"
        return _Facts(
            None, code.folder(spec.working_directory or "."), re.sub(r"[\x00-\x1f\x7f-\x9f]", "", stem)[:128], "command"
        )
    path = code.locate(str(spec.notebook or spec.script))
    where = PurePosixPath(path)
    if not re.fullmatch(r"[^\x00-\x1f\x7f-\x9f]+", path):
        raise InvalidInput(f"the path {path!r} holds control characters", hint="rename the file")
    if spec.script is not None:
        language = LANGUAGES.get(where.suffix.lower())
        if language is None:
            raise InvalidInput(
                f"{path} is no script that Lossi knows by its ending",
                hint="name a .py or .R file, or run it as a command" if where.suffix != ".ipynb" else "submit it as a notebook",
            )
        return _Facts(path, str(where.parent), where.stem, language)
    notebook = notebooks.read(code.read(path))
    if notebook.language == "julia":
        raise NotSupported(
            f"{path} is a Julia notebook",
            why="parameters cannot be put into Julia safely yet",
            hint="use Python or R for notebooks that run as jobs",
        )
    warnings.extend(notebook.notes)
    return _Facts(path, str(where.parent), where.stem, notebook.language, notebook.kernel, notebooks.parameters(notebook))


def _defaults(facts: _Facts) -> Parameters:
    """Return the defaults that a notebook's parameters cell states as literals."""
    if facts.declared is None:
        return {}
    return {item.name: item.default for item in facts.declared.parameters if not item.required and item.type != "any"}


def _check_total(spec: JobSpec) -> None:
    """Refuse a sweep that is too large before it is expanded."""
    if spec.sweep is None:
        return
    total, most = spec.sweep.total(), settings.load().max_tasks
    if total > most:
        raise InvalidInput(
            f"this sweep has {total:,} combinations, the limit is {most:,} tasks in one job",
            hint="sweep fewer values, draw combinations at random, or split it into several jobs",
            total=total,
            limit=most,
        )
    both = [] if isinstance(spec.sweep, sweep.List) else [name for name in spec.sweep.names if name in spec.parameters]
    if both:
        raise InvalidInput(f"parameter {both[0]!r} is both fixed and swept", hint="give it in one of the two places")


def _rows(spec: JobSpec, facts: _Facts) -> Iterator[Parameters]:
    """Yield the checked parameters of each task."""
    check = _check_declared if facts.declared is not None else _check_free
    if spec.sweep is None:
        yield check(dict(spec.parameters), facts)
        return
    as_text = isinstance(spec.sweep, sweep.Csv)
    for number, combination in enumerate(spec.sweep.combinations()):
        try:
            values = {**spec.parameters, **combination}
            yield check(_typed(values, set(combination), facts) if as_text else values, facts)
        except LossiError as error:
            error.what = f"task {number} of the sweep: {error.what}"
            raise


def _typed(values: Parameters, texts: Collection[str], facts: _Facts) -> Parameters:
    """Turn the values called ``texts``, which come from a CSV table, into what they mean."""
    if facts.declared is not None:
        table = {name: values[name] for name in texts}
        return {**values, **notebooks.check_values(facts.declared, table, from_text=True)}
    return {name: from_text(value) if name in texts else value for name, value in values.items()}


def _check_declared(values: Parameters, facts: _Facts) -> Parameters:
    assert facts.declared is not None
    return _unicode(notebooks.check_values(facts.declared, values))


def _check_free(values: Parameters, facts: _Facts) -> Parameters:
    form, what = (_FREE_NAME, "1 to 200 characters without `=`") if facts.path is None else (_IDENTIFIER, "letters, digits and _")
    for name in values:
        if not form.fullmatch(name):
            raise InvalidInput(f"{name!r} cannot be the name of a parameter", hint=f"use {what}")
    return _unicode(values)


def _unicode(values: Parameters) -> Parameters:
    """Refuse texts that no file can hold as UTF-8: halves of surrogate pairs."""
    for name, value in values.items():
        try:
            for text in _texts(value):
                text.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidInput(
                f"parameter {name!r} holds half a character (a lone surrogate)", hint="send valid Unicode"
            ) from None
    return values


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _environment(project: Project, spec: JobSpec, place: placing.Place, warnings: list[str]) -> ResolvedEnvironment:
    catalog = environments.load(project.root)
    if spec.environment is not None:
        found = environments.resolve(
            catalog.get(spec.environment), accelerator=place.accelerator, architecture=place.architecture
        )
        _check_packages(found, spec.kind)
        return found
    for candidate in catalog.environments:
        try:
            found = environments.resolve(candidate, accelerator=place.accelerator, architecture=place.architecture)
            _check_packages(found, spec.kind)
        except LossiError:
            continue
        warnings.append(f"no environment was named: {found.name} is used")
        return found
    raise Unavailable(
        "none of the environments can be used here", hint="`lossi env list` shows why; `lossi env add` adds one of your own"
    )


def _check_packages(environment: ResolvedEnvironment, kind: str) -> None:
    """Refuse a local Python in which the job could not even start."""
    lacking = environments.lacking(environment)
    needed = lacking if kind == "notebook" else [name for name in lacking if name == "mlflow"]
    if needed:
        raise Unavailable(
            f"environment {environment.name!r} cannot run a {kind}",
            why=f"{environment.python} has no {' and no '.join(needed)}",
            hint=f"install it there: {environment.python} -m pip install {' '.join(needed)}; `lossi env check` tells what else is missing",
        )


def _check_resources(asked: Resources, scheduler: schedulers.Scheduler, warnings: list[str]) -> None:
    """Refuse what the scheduler can never give, and say what it will not enforce."""
    able = scheduler.capabilities
    for what, wanted, most in (
        ("cores", asked.cpus, able.max_cpus),
        ("MiB of memory", asked.memory_mb, able.max_memory_mb),
        ("GPUs", asked.gpus, able.max_gpus),
        ("nodes", asked.nodes, able.max_nodes),
    ):
        if wanted is not None and most is not None and wanted > most:
            raise InvalidInput(
                f"scheduler {scheduler.name!r} gives a task at most {most:,} {what}, you asked for {wanted:,}",
                hint=f"ask for {most:,} or fewer" if most else f"ask for no {what}, or choose another scheduler",
                limit=most,
            )
    if not able.accounting:
        for name in ("partition", "account", "qos"):
            if getattr(asked, name):
                warnings.append(f"{name} {getattr(asked, name)!r} means nothing to the scheduler {scheduler.name!r}")
    if asked.time_limit_s and not able.time_limits:
        warnings.append(
            f"the scheduler {scheduler.name!r} does not enforce the time limit {units.format_time(asked.time_limit_s)}"
        )
    if asked.memory_mb and not able.memory_limits:
        warnings.append(f"the scheduler {scheduler.name!r} does not enforce the memory limit of {asked.memory_mb} MiB")


def _server() -> str | None:
    """Return the MLflow server that tasks log to, where MLFLOW_TRACKING_URI names one."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return None
    if parts.username or parts.password:
        raise InvalidInput(
            "MLFLOW_TRACKING_URI holds a user name or password",
            why="it would be written into the job directory",
            hint="take them out of the URI and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD where the job runs",
        )
    return uri
