"""One task from its prepared files to its exit.json: the order in which everything happens on the node.

Touches ``tasks/<n>/`` of its job, a private node-local folder, and the artifacts of the project's MLflow store.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Optional

from . import outputs, payload, places, records, tracking, unpacking, variables, verdict
from .processes import Family, oom_kills
from .progress import ProgressFile, now
from .records import PreparedJob, TaskError, TaskExit
from .sampling import Sampler
from .signals import Signals
from .writing import TaskFailure, explained, write

GRACE_S = 8.0
"""Seconds that a payload has after SIGTERM, unless LOSSI_GRACE_S says otherwise: the scheduler kills a little later."""
KILL_PATIENCE_S = 0.5
"""Seconds that processes have which a task leaves behind."""
LOG_TAIL = 64 * 1024


@dataclass
class Attempt:
    """What is known while a task runs."""

    job: PreparedJob
    number: int
    attempt: int
    places: places.Places
    signals: Signals
    progress: ProgressFile
    started: str
    started_s: float
    grace_s: float
    parameters: Dict[str, Any] = field(default_factory=dict)
    notes: List[str] = field(default_factory=list)
    files: outputs.Manifest = field(default_factory=dict)
    error: Optional[TaskError] = None
    kernel_signal: Optional[int] = None
    ran: bool = False
    """Whether the payload was started."""
    failed_s: Optional[float] = None
    """When things went wrong, seconds since the epoch."""

    @property
    def working_directory(self) -> Path:
        """Where the payload runs: its folder in the copy of the project."""
        return Path(os.path.normpath(self.places.code / self.job.working_directory))

    def note(self, text: str) -> None:
        """Keep something that the user should know."""
        self.notes.append(text)
        self.progress.note(text)
        say(text)


def run(directory: Path, number: int, attempt: int, signals: Signals) -> int:
    """Run one task of a prepared job and return the exit code of the runner.

    Never raises for what can go wrong with a task: it ends in exit.json, or where that cannot be written, in the log.
    """
    started, started_s, began = now(), time.time(), time.monotonic()
    folder = directory / records.TASK_FOLDER / str(number)
    where: Optional[places.Places] = None
    try:
        job = records.load(PreparedJob, directory / records.SPEC)
        where = places.make(directory, number, os.environ)
        _forget_earlier(where.task, attempt)
        progress = ProgressFile(where.task / records.PROGRESS, number, attempt, started)
        grace_s = float(os.environ.get("LOSSI_GRACE_S") or GRACE_S)
        task = Attempt(job, number, attempt, where, signals, progress, started, started_s, grace_s)
        outcome, result = _attempt(task)
        record = replace(outcome, started=started, ended=now(), elapsed_s=round(time.monotonic() - began, 3))
    except (TaskFailure, OSError, ValueError) as error:
        reason = explained(error) if isinstance(error, OSError) else str(error)
        say(reason)
        result = verdict.of_failure(reason)
        record = TaskExit(
            task=number,
            state=result.state,
            exit_code=result.exit_code,
            reason=reason,
            started=started,
            ended=now(),
            elapsed_s=round(time.monotonic() - began, 3),
            host=os.uname().nodename,
            attempt=attempt,
        )
    try:
        write(folder / records.EXIT, records.dump(record))
    except OSError as error:
        say(f"{records.EXIT} could not be written: {explained(error)}. The task's state is {record.state}: {record.reason}")
        return result.status or 1
    finally:
        if where is not None:
            where.remove()
    return result.status


def _forget_earlier(folder: Path, attempt: int) -> None:
    """Remove how an earlier attempt ended: exit.json says that a task is final."""
    names = [records.EXIT, records.ENDING] if attempt > 1 else [records.EXIT]
    for name in names:
        try:
            os.unlink(folder / name)
        except FileNotFoundError:
            pass


def _attempt(task: Attempt) -> "tuple[TaskExit, verdict.Verdict]":
    """Prepare, run and finish; what fails on the way is the task's verdict."""
    task.progress.phase("starting")
    store = tracking.open_for(task.job, task.number, task.places, task.attempt)
    family = Family(task.job.id, task.number)
    sampler: Optional[Sampler] = None
    try:
        task.parameters = _parameters(task)
        store.parameters = task.parameters
        environment = store.environment(sys.executable)
        sampler = Sampler(family, task.places.task / records.USE, environment)
        kills = oom_kills() or 0
        log_start = _log_size(task)
        process, events = _start(task, environment, store)
        sampler.start()
        returncode = _watch(task, process, events, family, store, sampler)
        result = _judge(task, returncode, out_of_memory=(oom_kills() or 0) > kills, log_start=log_start)
    except (TaskFailure, OSError) as error:
        result = verdict.of_failure(explained(error) if isinstance(error, OSError) else str(error))
        if task.signals.stopped:
            told = _ending(task)
            result = replace(result, state=told.state, exit_code=None, signal=signal.SIGTERM, reason=told.reason or result.reason)
    if result.state != records.SUCCEEDED:
        say(f"{result.state}: {result.reason}")
    task.progress.phase("finishing")
    left = family.end(0.0 if task.signals.stopped else KILL_PATIENCE_S)
    if left and not task.signals.stopped:
        task.note(f"{left} processes that the task had left running were ended")
    use = None if sampler is None else sampler.stop()
    run_ids = store.finish(result.state, task.started_s, task.failed_s, None if use is None else (use.gpu_type, use.gpu_driver))
    if task.ran:
        _collect(task)
    record = TaskExit(
        task=task.number,
        state=result.state,
        exit_code=result.exit_code,
        signal=result.signal,
        reason=result.reason,
        error=result.error,
        host=os.uname().nodename,
        attempt=task.attempt,
        run_ids=run_ids,
        tracking_error=store.problem,
        notes=[*task.notes, *store.notes],
    )
    if use is not None:
        record = replace(
            record,
            cpu_s=use.cpu_s,
            max_rss_mb=use.max_rss_mb,
            gpu_utilisation=use.gpu_utilisation,
            gpu_memory_mb=use.gpu_memory_mb,
            gpu_type=use.gpu_type,
            gpu_driver=use.gpu_driver,
        )
    task.progress.phase("done")
    return record, result


def _parameters(task: Attempt) -> Dict[str, Any]:
    """Bring the task's parameters to the node, byte for byte, and return them."""
    line = unpacking.parameters_line(task.places.job / records.TASKS, task.number, task.job.digests.get(records.TASKS))
    values = payload.parsed(line)
    write(task.places.parameters, line, durable=False)
    return values


def _start(
    task: Attempt, environment: Dict[str, str], store: tracking.Tracking
) -> "tuple[subprocess.Popen[bytes], Optional[int]]":
    """Bring the code to the node and start the payload; a notebook's child imports papermill meanwhile."""
    job = task.job
    if job.kind != "notebook":
        _bring_code(task, store)
        if job.kind == "script":
            argv = payload.script_argv(sys.executable, task.places.code / str(job.source), task.parameters, job.command)
        elif job.kind == "command":
            argv = payload.command_argv(job.command, task.parameters)
        else:
            raise TaskFailure(f"jobs of kind {job.kind!r} are not known to this runner")
        _check_not_stopped(task)
        return _popen(argv, environment, cwd=task.working_directory), None
    reader, writer = os.pipe()
    child = [os.fsencode(part) for part in (*variables.own_command(), "notebook", str(writer))]
    try:
        process = _popen(child, environment, stdin=subprocess.PIPE, pass_fds=(writer,))
    finally:
        os.close(writer)
    try:
        _bring_code(task, store)
        _check_not_stopped(task)
        order = {
            "notebook": str(task.places.code / str(job.source)),
            "output": str(task.places.notebook),
            "parameters": str(task.places.parameters),
            "cwd": str(task.working_directory),
            "name": job.source,
            "language": job.language,
            "kernel": job.kernel,
            "grace_s": task.grace_s,
        }
        assert process.stdin is not None
        try:
            process.stdin.write((json.dumps(order) + "\n").encode())
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already: its exit code and the log say why
    except BaseException:
        process.kill()
        process.wait()
        os.close(reader)
        raise
    return process, reader


def _bring_code(task: Attempt, store: tracking.Tracking) -> None:
    archive = task.places.job / records.CODE
    if archive.exists() or records.CODE in task.job.digests:
        for note in unpacking.unpack(archive, task.places.code, task.job.digests.get(records.CODE)):
            task.note(note)
    for note in unpacking.link_data(task.places.code, task.job.code.links):
        task.note(note)
    directory = task.working_directory
    if directory != task.places.code and task.places.code not in directory.parents:
        raise TaskFailure(f"the working directory {task.job.working_directory!r} is outside the project")
    directory.mkdir(parents=True, exist_ok=True)
    task.files = outputs.manifest(task.places.code)
    task.places.output.mkdir(exist_ok=True)
    store.link_strays(directory)


def _check_not_stopped(task: Attempt) -> None:
    """Do not start what would be stopped at once."""
    if task.signals.stopped or (task.places.task / records.ENDING).exists():
        task.signals.stopped_at = task.signals.stopped_at or time.time()
        raise TaskFailure("stopped before it had begun")


def _popen(argv: List[bytes], environment: Dict[str, str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a process in a session of its own, so that a signal for it reaches what it started, and no terminal's reaches it.

    Raises
    ------
    TaskFailure
        When it cannot be started.
    """
    options.setdefault("stdin", subprocess.DEVNULL)
    try:
        return subprocess.Popen(argv, env=environment, start_new_session=True, **options)
    except (OSError, ValueError) as error:
        name = os.fsdecode(argv[0])
        raise TaskFailure(f"cannot start {name!r}: {getattr(error, 'strerror', None) or error}") from error


def _watch(
    task: Attempt,
    process: "subprocess.Popen[bytes]",
    events: Optional[int],
    family: Family,
    store: tracking.Tracking,
    sampler: Sampler,
) -> int:
    """Wait for the payload's end: take its reports, publish, pass on a request to stop, kill when the grace is over."""
    task.ran = True
    task.progress.phase("running")
    store.begin(lambda: (sampler.gpu_type, sampler.gpu_driver))
    kill_at: Optional[float] = None
    told = False
    buffer = b""
    while process.poll() is None:
        if task.signals.stopped and not told:
            told, kill_at = True, time.monotonic() + task.grace_s
            task.failed_s = task.failed_s or task.signals.stopped_at
            _signal(process, signal.SIGTERM, group=task.job.kind != "notebook")
        if kill_at is not None and time.monotonic() >= kill_at:
            family.end(0.0)
        task.progress.flush()
        store.poll()
        timeout = 1.0 if kill_at is None else min(1.0, max(0.02, kill_at - time.monotonic()))
        if events in task.signals.wait(timeout, [] if events is None else [events]):
            assert events is not None
            data = os.read(events, 1 << 16)
            if not data:
                os.close(events)
                events = None
            buffer = _take_events(task, buffer + data)
    if events is not None:
        os.set_blocking(events, False)
        while True:
            try:
                data = os.read(events, 1 << 16)
            except BlockingIOError:
                break
            if not data:
                break
            buffer = _take_events(task, buffer + data)
        os.close(events)
    return process.returncode


def _signal(process: "subprocess.Popen[bytes]", number: int, *, group: bool) -> None:
    try:
        if group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    except OSError:
        pass


def _take_events(task: Attempt, buffer: bytes) -> bytes:
    """Take whole lines out of the buffer; return what is left of it."""
    *lines, rest = buffer.split(b"\n")
    for line in lines:
        facts = json.loads(line)
        event = facts.pop("event")
        task.progress.event(event, facts)
        if event == "start":
            for note in facts.get("notes", ()):
                task.notes.append(note)
                task.progress.note(note)
        elif event == "error":
            task.failed_s = task.failed_s or float(facts["t"])
        elif event == "end":
            task.error = records.from_dict(TaskError, facts["error"]) if facts.get("error") else None
            task.kernel_signal = facts.get("signal")
    return rest


def _judge(task: Attempt, returncode: int, *, out_of_memory: bool, log_start: int) -> verdict.Verdict:
    ended = time.time()
    stopped = _ending(task) if task.signals.stopped else None
    if returncode != 0 and task.error is None:
        task.error = verdict.error_in_log(_log_tail(task, log_start), returncode)
    if returncode != 0 and task.failed_s is None:
        # A script's open run is closed by MLflow when its process ends, after the error.
        task.failed_s = ended - 1.0 if task.job.kind != "notebook" else ended
    return verdict.of_payload(
        returncode, stopped=stopped, error=task.error, kernel_signal=task.kernel_signal, out_of_memory=out_of_memory
    )


def _ending(task: Attempt) -> records.Ending:
    return verdict.ending(records.load_optional(records.Ending, task.places.task / records.ENDING))


def _log_size(task: Attempt) -> int:
    try:
        return os.stat(task.places.task / records.LOG).st_size
    except OSError:
        return 0


def _log_tail(task: Attempt, start: int) -> str:
    """Return the end of what this attempt has printed."""
    try:
        with open(task.places.task / records.LOG, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(start, size - LOG_TAIL))
            return stream.read(LOG_TAIL).decode("utf-8", "replace")
    except OSError:
        return ""


def _collect(task: Attempt) -> None:
    deadline = time.monotonic() + task.grace_s / 4 if task.signals.stopped else None
    for note in outputs.collect(
        task.places.code,
        task.working_directory,
        task.files,
        task.places.output,
        task.job.output_limit_mb,
        since_ns=int(task.started_s * 1e9),
        deadline=deadline,
    ):
        task.note(note)
    try:
        task.places.output.rmdir()  # nothing came
    except OSError:
        pass


def say(text: str) -> None:
    """Tell the reader of the log."""
    try:
        print(f"lossi: {text}", file=sys.stderr, flush=True)
    except OSError:
        pass
