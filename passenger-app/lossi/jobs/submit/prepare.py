"""From a plan to the job directory: built under another name, made durable, renamed. Nothing is started.

Writes ``<project>/.lossi/jobs/`` and, through `projects.stores`, the project's MLflow store. A job directory has at most ten
files, however many tasks there are; it belongs to the submitter and the project's group can read it (0750).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lossi import environments, settings, units
from lossi.contract import records
from lossi.contract.records import PreparedJob, ResolvedEnvironment, TrackingTarget
from lossi.errors import InvalidInput
from lossi.files import atomic
from lossi.jobs.models import Preview
from lossi.jobs.submit import preparer, script
from lossi.jobs.submit.code import Code
from lossi.jobs.submit.plan import Plan
from lossi.jsonable import plain
from lossi.projects import Project, stores
from lossi.runner import archive

PREVIEWED_TASKS = 20
LARGEST_PARAMETERS_BYTES = 512 * 2**20
"""Of all tasks together; larger values belong in a file."""

STALE_S = 3600.0
"""A directory under construction for longer than this was left behind."""


def preview(project: Project, plan: Plan) -> Preview:
    """Return what preparing and submitting would do; nothing is written."""
    directory = plan.directory(project)
    argv = plan.scheduler.preview(plan.job, directory)
    text = script.render(_header(plan.job, directory, plan.scheduler.directives(plan.job, directory), plan.mounts))
    job = dataclasses.replace(plan.job, request=plain(plan.job.request), sweep=plain(plan.job.sweep))
    tasks = [plain(row) for row in plan.rows[:PREVIEWED_TASKS]]
    warnings = [*plan.warnings, *plan.scheduler.warnings(plan.job, directory)]
    return Preview(
        job=job,
        script=text,
        argv=argv,
        tasks=tasks,
        total=len(plan.rows),
        warnings=warnings,
        expected_start=plan.scheduler.expected_start(plan.job, directory),
    )


def prepare(project: Project, plan: Plan, code: Code) -> tuple[PreparedJob, Path]:
    """Build the job directory; return the job as written, and the directory.

    Raises
    ------
    InvalidInput
        When the notebook is not part of the code snapshot, or the parameters are too large.
    Forbidden, Unavailable
        When it cannot be written; nothing is left behind.
    """
    project.make_home()
    final = plan.directory(project)
    part = project.jobs / f".{plan.job.id}.part"
    try:
        template = _template(plan.job.environment)
        stores.ensure(project, template)
        experiment = stores.ensure_experiment(project, plan.job.tracking.experiment)
        tracking = dataclasses.replace(
            plan.job.tracking, experiment_id=experiment.id, artifact_location=experiment.artifact_location
        )
        _make_folder(part)
        _write(part / preparer.FILE, preparer.dump(preparer.myself()))
        stores.task_template(project, template, experiment, part / records.TEMPLATE)
        job = _fill(project, plan, code, part, final, tracking)
        _sync(part)
        part.rename(final)
        atomic.sync_folder(project.jobs)
        return job, final
    except BaseException as error:
        discard(part)
        if isinstance(error, OSError):
            raise atomic.explained(error, part) from error
        raise


def warm(plan: Plan) -> None:
    """Make the empty MLflow store, which takes seconds and is kept for each environment.

    Raises
    ------
    NotSupported, Unavailable
        When the environment cannot make one.
    """
    _template(plan.job.environment)


def discard(directory: Path) -> None:
    """Remove an unused job directory, as far as possible."""
    with contextlib.suppress(OSError):
        shutil.rmtree(directory)


def remove_left_behind(project: Project, names: Sequence[str]) -> None:
    """Remove those of the directories ``names`` (``.<id>.part``) that are an hour old and that no process works on."""
    for name in names:
        part = project.jobs / name
        with contextlib.suppress(OSError):
            if time.time() - part.lstat().st_mtime > STALE_S and not preparer.at_work(part):
                discard(part)


def read_rows(directory: Path) -> Iterator[dict[str, Any]]:
    """Yield the parameters of each task of a job, in the order of their numbers.

    Raises
    ------
    OSError, ValueError
        When the file is missing or broken.
    """
    with (directory / records.TASKS).open("rb") as stream:
        for line in stream:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("expected an object of parameters")
            yield row


def _template(environment: ResolvedEnvironment) -> Path:
    return stores.template(
        [*environment.prefix, environment.python],
        environments.cache_key(environment),
        environments.clean_environment(environment, {}),
    )


def _fill(project: Project, plan: Plan, code: Code, part: Path, final: Path, tracking: TrackingTarget) -> PreparedJob:
    limit = settings.load().untracked_limit_mb * 2**20
    snapshot = code.take(part / records.CODE, part / records.DIFF, untracked_limit_bytes=limit, source=plan.job.source)
    digests = {
        records.RUNNER: archive.build(part / records.RUNNER),
        records.TASKS: _write_rows(part / records.TASKS, plan.rows),
        records.CODE: _digest(part / records.CODE),
        records.TEMPLATE: _digest(part / records.TEMPLATE),
    }
    job = dataclasses.replace(plan.job, code=snapshot, tracking=tracking, digests=digests)
    header = _header(job, final, plan.scheduler.directives(job, final), plan.mounts)
    _write(part / records.SCRIPT, script.encoded(script.render(header)))
    _write(part / records.SPEC, records.dump(job))
    (part / records.TASK_FOLDER).mkdir(mode=0o750)
    return job


def _header(
    job: PreparedJob, directory: Path, directives: Sequence[str], mounts: Sequence[environments.Mount] = ()
) -> script.Header:
    environment = job.environment
    runner = [environment.python, os.fspath(directory / records.RUNNER), "run", "--job", os.fspath(directory)]
    binds = [] if environment.kind == "local" else [*_binds(job, directory), *mounts]
    argv = environments.command(environment, runner, binds=binds)
    return script.Header(
        job.id,
        directory,
        job.tasks,
        argv,
        environment.kind,
        environment.variables,
        directives,
        nodes=job.resources.nodes,
        setup=job.setup,
        scratch=job.scratch,
    )


def _binds(job: PreparedJob, directory: Path) -> list[Path | environments.Mount]:
    """Return what a container must see: the job directory, the artifacts, and the linked data read-only."""
    artifacts = stores.local_path(job.tracking.artifact_location) if job.tracking.artifact_location else None
    data = [environments.Mount(source=link.target, target=None, read_only=True) for link in job.code.links]
    return [directory, *([artifacts] if artifacts else ()), *data]


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write one line per task and return the digest. ASCII only, so that no character of a value can end a line."""
    digest = hashlib.sha256()
    size = 0
    with _creating(path) as stream:
        for row in rows:
            line = json.dumps(row, separators=(",", ":")).encode("ascii") + b"\n"
            size += len(line)
            if size > LARGEST_PARAMETERS_BYTES:
                raise InvalidInput(
                    f"the parameters of the {len(rows):,} tasks take more than {units.humanize_size(LARGEST_PARAMETERS_BYTES)}",
                    hint="put the large value into a file of the project and pass its path as the parameter",
                )
            digest.update(line)
            stream.write(line)
    return digest.hexdigest()


def _write(path: Path, data: bytes) -> None:
    with _creating(path) as stream:
        stream.write(data)


@contextlib.contextmanager
def _creating(path: Path) -> Iterator[Any]:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640), "wb") as stream:
        yield stream


def _make_folder(path: Path) -> None:
    path.mkdir(mode=0o750)
    path.chmod(path.stat().st_mode & stat.S_ISGID | 0o750)


def _sync(part: Path) -> None:
    for entry in os.scandir(part):
        if entry.is_file(follow_symlinks=False):
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                # Whatever the umask was: the group of the project may read.
                os.fchmod(descriptor, 0o750 if entry.name == records.SCRIPT else 0o640)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    atomic.sync_folder(part)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
