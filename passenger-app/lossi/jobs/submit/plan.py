"""From a request to a plan: whatever can be refused is refused here, before anything is written.

Reads the notebook, the catalogue and the settings. Of job directories it knows only the path.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import lossi
from lossi import environments, notebooks, processes, settings, units
from lossi.contract.records import PreparedJob, ResolvedEnvironment, Resources, TrackingTarget
from lossi.contract.text import CONTROL
from lossi.errors import InvalidInput, LossiError, NotSupported, Unavailable
from lossi.jobs import schedulers, times, ulid
from lossi.jobs.submit import space_check
from lossi.jobs.submit.code import Code
from lossi.jobs.submit.placing import Place, find_place
from lossi.jobs.submit.spec import JobSpec
from lossi.jobs.submit.task_parameters import Parameters, expand
from lossi.projects import Project

LANGUAGES = {".py": "python", ".ipy": "python", ".r": "r", ".sh": "shell"}
"""Languages of scripts by suffix."""


@dataclass(frozen=True)
class Plan:
    """A job that can be prepared.

    Attributes
    ----------
    job
        As in ``spec.json``, without what preparing adds: code, experiment id, digests.
    rows
        Parameters of each task.
    warnings
        What may surprise the user.
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


def make_plan(
    project: Project,
    spec: JobSpec,
    code: Code,
    *,
    dependency: str | None = None,
    resubmitted_from: str | None = None,
    idempotency_key: str | None = None,
) -> Plan:
    """Decide everything about a job; ``dependency`` is what it waits for, as the scheduler writes it.

    Raises
    ------
    InvalidInput, NotFound, Forbidden, NotSupported, Unavailable
        When the job cannot run as requested; says what to change.
    """
    scheduler = schedulers.get(spec.scheduler, spec.cluster)
    warnings: list[str] = []
    source = _read_source(spec, code, warnings)
    rows = expand(spec, source.declared)
    resources = spec.resources.record()
    place = find_place(scheduler, resources)
    environment = _choose_environment(project, spec, place, warnings)
    _check_resources(resources, scheduler, warnings)
    if resources.nodes > 1 and spec.notebook is not None:
        raise InvalidInput(
            f"the job requests {resources.nodes} nodes, but a notebook runs on one",
            hint="run a script or a command on several nodes; `lossi notebook script` turns a notebook into a script",
        )
    warnings += space_check.check_space(project, len(rows))
    parallel = min(len(rows), spec.max_parallel or len(rows))
    job = PreparedJob(
        id=ulid.new(),
        name=spec.name or source.stem,
        kind=spec.kind,
        project=str(project.root),
        user=processes.user().name,
        created=times.utc(time.time()),
        source=source.path,
        command=list(spec.command or spec.arguments),
        working_directory=source.folder,
        language=source.language,
        kernel=source.kernel,
        tasks=len(rows),
        sweep=None if spec.sweep is None else spec.sweep.model_dump(),
        swept=[] if spec.sweep is None else list(spec.sweep.names),
        max_parallel=spec.max_parallel,
        requeue=spec.requeue and scheduler.capabilities.requeue,
        dependency=dependency,
        setup=place.setup,
        scratch=place.scratch,
        defaults=source.defaults,
        environment=environment,
        resources=resources,
        tracking=TrackingTarget(
            spec.experiment or source.stem, server_uri=_tracking_server(), publish_interval_s=publish_interval(parallel)
        ),
        tags=dict(spec.tags),
        request={**spec.model_dump(), "sweep": None, "scheduler": scheduler.name, "cluster": scheduler.cluster},
        idempotency_key=idempotency_key,
        resubmitted_from=resubmitted_from,
        output_limit_mb=settings.load().output_limit_mb,
        lossi_version=lossi.__version__,
    )
    return Plan(job, rows, scheduler, warnings, mounts=place.mounts)


def publish_interval(parallel: int) -> float:
    """Return the seconds between snapshots of a task: 10 for up to 50 parallel tasks, rising to 60 for 1,000."""
    return 10.0 + 50.0 * min(max(parallel - 50, 0), 950) / 950


@dataclass(frozen=True)
class _Source:
    """The notebook, script or command to run."""

    path: str | None
    folder: str
    stem: str
    language: str
    kernel: str | None = None
    declared: notebooks.Parameters | None = None

    @property
    def defaults(self) -> Parameters:
        """The defaults that a notebook's parameters cell gives as literals."""
        declared = () if self.declared is None else self.declared.parameters
        return {item.name: item.default for item in declared if not item.required and item.type != "any"}


def _read_source(spec: JobSpec, code: Code, warnings: list[str]) -> _Source:
    if spec.command is not None:
        stem = CONTROL.sub("", PurePosixPath(spec.command[0]).name or "command")[:128]
        return _Source(None, code.folder(spec.working_directory or "."), stem, "command")
    path = code.locate(str(spec.notebook or spec.script))
    pure = PurePosixPath(path)
    if CONTROL.search(path):
        raise InvalidInput(f"the path {path!r} contains control characters", hint="rename the file")
    if spec.script is not None:
        language = LANGUAGES.get(pure.suffix.lower())
        if language is None:
            raise InvalidInput(
                f"{path} is not a script of a known language",
                hint="submit it as a notebook" if pure.suffix == ".ipynb" else "pass a .py or .R file, or run it as a command",
            )
        return _Source(path, str(pure.parent), pure.stem, language)
    notebook = notebooks.read(code.read(path))
    if notebook.language == "julia":
        raise NotSupported(
            f"{path} is a Julia notebook",
            why="Lossi cannot pass parameters to Julia safely yet",
            hint="use Python or R for notebooks that run as jobs",
        )
    warnings.extend(notebook.notes)
    return _Source(path, str(pure.parent), pure.stem, notebook.language, notebook.kernel, notebooks.parameters(notebook))


def _choose_environment(project: Project, spec: JobSpec, place: Place, warnings: list[str]) -> ResolvedEnvironment:
    catalog = environments.load(project.root)
    if spec.environment is not None:
        return _resolve(catalog.get(spec.environment), spec, place)
    for candidate in catalog.environments:
        try:
            environment = _resolve(candidate, spec, place)
        except LossiError:
            continue
        warnings.append(f"no environment was named: using {environment.name}")
        return environment
    raise Unavailable("no environment can be used here", hint="`lossi env list` shows why; `lossi env add` adds your own")


def _resolve(entry: environments.Environment, spec: JobSpec, place: Place) -> ResolvedEnvironment:
    environment = environments.resolve(entry, accelerator=place.accelerator, architecture=place.architecture)
    _check_packages(environment, spec.kind)
    return environment


def _check_packages(environment: ResolvedEnvironment, kind: str) -> None:
    """Refuse a local Python in which the job could not start."""
    lacking = environments.lacking(environment)
    needed = lacking if kind == "notebook" else [name for name in lacking if name == "mlflow"]
    if needed:
        raise Unavailable(
            f"environment {environment.name!r} cannot run a {kind}",
            why=f"{environment.python} has no {' and no '.join(needed)}",
            hint=f"install it: {environment.python} -m pip install {' '.join(needed)}; `lossi env check` says what else is missing",
        )


def _check_resources(resources: Resources, scheduler: schedulers.Scheduler, warnings: list[str]) -> None:
    """Refuse what the scheduler can never give, and warn of what it does not enforce."""
    capabilities = scheduler.capabilities
    for what, requested, most in (
        ("cores", resources.cpus, capabilities.max_cpus),
        ("MiB of memory", resources.memory_mb, capabilities.max_memory_mb),
        ("GPUs", resources.gpus, capabilities.max_gpus),
        ("nodes", resources.nodes, capabilities.max_nodes),
    ):
        if requested is not None and most is not None and requested > most:
            raise InvalidInput(
                f"scheduler {scheduler.name!r} gives a task at most {most:,} {what}, you requested {requested:,}",
                hint=f"request at most {most:,}" if most else f"request no {what}, or choose another scheduler",
                limit=most,
            )
    if not capabilities.accounting:
        for name in ("partition", "account", "qos"):
            if getattr(resources, name):
                warnings.append(f"scheduler {scheduler.name!r} ignores {name} {getattr(resources, name)!r}")
    if resources.time_limit_s and not capabilities.time_limits:
        warnings.append(
            f"the scheduler {scheduler.name!r} does not enforce the time limit {units.format_time(resources.time_limit_s)}"
        )
    if resources.memory_mb and not capabilities.memory_limits:
        warnings.append(f"the scheduler {scheduler.name!r} does not enforce the memory limit of {resources.memory_mb} MiB")


def _tracking_server() -> str | None:
    """Return the MLflow server that tasks log to, if MLFLOW_TRACKING_URI names one."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return None
    if parts.username or parts.password:
        raise InvalidInput(
            "MLFLOW_TRACKING_URI contains a user name or password",
            why="it would be written into the job directory",
            hint="remove them from the URI and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD where the job runs",
        )
    return uri
