"""One task from its prepared files to its exit.json: the order of everything on the node.

Writes to ``tasks/<n>/`` of its job, a private node-local folder, and the artifacts of the project's MLflow store.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Optional

from lossi.contract.states import SUCCEEDED

from ..contract import records
from ..contract.records import PreparedJob, TaskExit
from . import outcome, outputs, paths, payload_argv, payload_environment, payload_process, ranks, tracking, unpacking
from .attempt import Attempt, log
from .errors import TaskFailure, explained
from .outcome import Outcome
from .paths import TaskPaths
from .processes import TaskProcesses, oom_kills
from .progress import ProgressFile, now
from .sampling import Sampler
from .signals import Signals
from .writing import no_room, write

GRACE_S = 8.0
"""Seconds that a payload has after SIGTERM, unless LOSSI_GRACE_S is set; the scheduler kills a little later."""
KILL_PATIENCE_S = 0.5
"""Seconds that processes left behind by a task have after SIGTERM."""
LOG_TAIL = 64 * 1024


def run(directory: Path, number: int, attempt: int, signals: Signals, rank: int = 0) -> int:
    """Run one task of a prepared job and return the exit code of the runner.

    Never raises for what can go wrong with a task: that ends in exit.json or, if it cannot be written, in the log.
    ``rank`` is the number of this node's process among the task's.
    """
    started, started_s, began = now(), time.time(), time.monotonic()
    folder = directory / records.TASK_FOLDER / str(number)
    task_paths: Optional[TaskPaths] = None
    try:
        job = records.load(PreparedJob, directory / records.SPEC)
        task_paths = paths.make(directory, number, os.environ, rank)
        if rank == 0:
            _remove_earlier(task_paths.task, attempt)
        if attempt > 1:
            log(f"attempt {attempt} begins")
        progress = ProgressFile(task_paths.progress, number, attempt, started)
        grace_s = float(os.environ.get("LOSSI_GRACE_S") or GRACE_S)
        task = Attempt(job, number, attempt, task_paths, signals, progress, started, started_s, grace_s)
        task.ranks = ranks.other_ranks(task_paths.task, job.resources.nodes, rank)
        record, result = _attempt(task)
        record = replace(record, started=started, ended=now(), elapsed_s=round(time.monotonic() - began, 3))
    except Exception as error:  # noqa: BLE001 - the task's end must be recorded, whatever it was
        reason = _reason(error)
        log(reason)
        result = outcome.of_failure(reason)
        if task_paths is not None:
            TaskProcesses(os.environ.get("LOSSI_JOB_ID", directory.name), number).end(0.0)
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
        written = _write_exit_record(folder / ranks.exit_file(rank), record)
    finally:
        if task_paths is not None:
            task_paths.remove()
    return result.status if written else result.status or 1


def _reason(error: Exception) -> str:
    """Return one sentence for the user; an unforeseen error goes to the log in full."""
    if isinstance(error, OSError):
        return explained(error)
    if isinstance(error, (TaskFailure, ValueError)):
        return str(error)
    import traceback

    traceback.print_exc()
    return f"the runner itself failed: {type(error).__name__}: {error}"


def _write_exit_record(path: Path, record: TaskExit) -> bool:
    """Write exit.json; on a full filesystem remove less important files to make room. Return whether it was written."""
    data = records.dump(record)
    for last in (False, True):
        try:
            write(path, data)
            return True
        except OSError as error:
            if last:
                log(f"cannot write {path.name}: {explained(error)}. The task's state is {record.state}: {record.reason}")
            for name in (records.PROGRESS, records.USE):
                try:
                    os.unlink(path.parent / name)
                except OSError:
                    pass
    return False


def _remove_earlier(folder: Path, attempt: int) -> None:
    """Remove an earlier attempt's exit record, which would say that the task is final, and its unfinished files."""
    names = [records.EXIT]
    if attempt > 1:
        names += [records.ENDING, *(name for name in os.listdir(folder) if name.startswith(".") and name.endswith(".part"))]
    for name in names:
        try:
            os.unlink(folder / name)
        except FileNotFoundError:
            pass


def _attempt(task: Attempt) -> "tuple[TaskExit, Outcome]":
    """Prepare, run and finish; a failure on the way is the task's outcome."""
    task.progress.phase("starting")
    task.parameters = _parameters(task)
    store = tracking.open_for(task.job, task.number, task.paths, task.attempt, task.parameters)
    processes = TaskProcesses(task.job.id, task.number, task.paths.rank if task.job.resources.nodes > 1 else None)
    sampler: Optional[Sampler] = None
    try:
        environment = store.environment(sys.executable)
        sampler = Sampler(processes, task.paths.use, environment)
        kills = oom_kills() or 0
        log_start = _log_size(task)
        process, events = _start(task, environment, store)
        sampler.start()
        returncode = payload_process.watch(task, process, events, processes, store, sampler)
        payload_process.await_ranks(task, returncode, store)
        result = _outcome(task, returncode, out_of_memory=(oom_kills() or 0) > kills, log_start=log_start)
    except (TaskFailure, OSError) as error:
        result = outcome.of_failure(explained(error) if isinstance(error, OSError) else str(error))
        if task.signals.stopped and not task.payload_started:
            ending = task.ending()
            reason = ending.reason or result.reason
            result = replace(result, state=ending.state, exit_code=None, signal=signal.SIGTERM, reason=reason)
    if result.state != SUCCEEDED:
        log(f"{result.state}: {result.reason}")
    task.progress.phase("finishing")
    left = processes.end(0.0 if task.signals.stopped else KILL_PATIENCE_S)
    if left and not task.signals.stopped:
        task.note(f"{left} processes that the task had left running were ended")
    use = None if sampler is None else sampler.stop()
    run_ids = store.finish(result.state, task.started_s, task.failed_s, None if use is None else (use.gpu_type, use.gpu_driver))
    if task.payload_started:
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
        record = replace(record, **vars(use))
    if task.ranks is not None:
        record = _with_ranks(record, task.ranks)
    task.progress.phase("done")
    return record, result


def _with_ranks(record: TaskExit, others: ranks.Ranks) -> TaskExit:
    """Return the task's exit record with the use and the notes of the processes on its other nodes."""
    ends = [record, *others.exits.values()]
    cpu = [end.cpu_s for end in ends if end.cpu_s is not None]
    rss = [end.max_rss_mb for end in ends if end.max_rss_mb is not None]
    gpu = [end.gpu_utilisation for end in ends if end.gpu_utilisation is not None]
    gpu_memory = [end.gpu_memory_mb for end in ends if end.gpu_memory_mb is not None]
    return replace(
        record,
        cpu_s=round(sum(cpu), 3) if cpu else None,
        max_rss_mb=max(rss) if rss else None,  # memory is requested per node
        gpu_utilisation=round(sum(gpu) / len(gpu), 2) if gpu else None,
        gpu_memory_mb=round(sum(gpu_memory), 1) if gpu_memory else None,
        notes=[*record.notes, *others.notes()],
    )


def _parameters(task: Attempt) -> Dict[str, Any]:
    """Copy the task's parameters to the node, byte for byte, and return them."""
    line = unpacking.parameters_line(task.paths.job / records.TASKS, task.number, task.job.digests.get(records.TASKS))
    values = payload_argv.parse_parameters(line)
    write(task.paths.parameters, line, durable=False)
    return values


def _start(
    task: Attempt, environment: Dict[str, str], store: tracking.Tracking
) -> "tuple[subprocess.Popen[bytes], Optional[int]]":
    """Unpack the code and start the payload; a notebook's child imports papermill meanwhile."""
    job = task.job
    if job.kind != "notebook":
        _unpack_code(task, store)
        if job.kind == "script":
            argv = payload_argv.script_argv(sys.executable, task.paths.code / str(job.source), task.parameters, job.command)
        elif job.kind == "command":
            argv = payload_argv.command_argv(job.command, task.parameters)
        else:
            raise TaskFailure(f"this runner does not know jobs of kind {job.kind!r}")
        _check_not_stopped(task)
        return payload_process.start(argv, environment, cwd=task.working_directory), None
    reader, writer = os.pipe()
    child = [os.fsencode(part) for part in (*payload_environment.own_command(), "notebook", str(writer))]
    try:
        process = payload_process.start(child, environment, stdin=subprocess.PIPE, pass_fds=(writer,))
    finally:
        os.close(writer)
    try:
        _unpack_code(task, store)
        _check_not_stopped(task)
        order = {
            "notebook": str(task.paths.code / str(job.source)),
            "output": str(task.paths.notebook),
            "parameters": str(task.paths.parameters),
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
            pass  # it has ended: its exit code and the log say why
    except BaseException:
        process.kill()
        process.wait()
        os.close(reader)
        raise
    return process, reader


def _unpack_code(task: Attempt, store: tracking.Tracking) -> None:
    archive = task.paths.job / records.CODE
    if archive.exists() or records.CODE in task.job.digests:
        for note in unpacking.unpack(archive, task.paths.code, task.job.digests.get(records.CODE)):
            task.note(note)
    for note in unpacking.link_data(task.paths.code, task.job.code.links):
        task.note(note)
    directory = task.working_directory
    if directory != task.paths.code and task.paths.code not in directory.parents:
        raise TaskFailure(f"the working directory {task.job.working_directory!r} is outside the project")
    directory.mkdir(parents=True, exist_ok=True)
    task.files = outputs.manifest(task.paths.code)
    task.paths.output.mkdir(exist_ok=True)
    store.link_default_folders(directory)


def _check_not_stopped(task: Attempt) -> None:
    """Do not start a payload that would be stopped at once."""
    if task.signals.stopped or (task.paths.rank == 0 and (task.paths.task / records.ENDING).exists()):
        task.signals.stopped_at = task.signals.stopped_at or time.time()
        raise TaskFailure("stopped before it began")


def _outcome(task: Attempt, returncode: int, *, out_of_memory: bool, log_start: int) -> Outcome:
    ended = time.time()
    # Slurm signals every process, so the payload may have ended before the runner stopped it; a success stays one.
    stopped = task.ending() if task.stop_sent or (task.signals.stopped and returncode != 0) else None
    if returncode != 0 and task.error is None:
        task.error = outcome.error_in_log(_log_tail(task, log_start), returncode)
    if returncode != 0 and task.failed_s is None:
        task.failed_s = ended if task.job.kind == "notebook" else _script_failed_at(task, ended)
    if task.failed_rank is not None and not (task.paths.task / records.ENDING).exists():
        return outcome.of_rank(task.failed_rank)
    return outcome.of_payload(
        returncode,
        stopped=stopped,
        error=task.error,
        kernel_signal=task.kernel_signal,
        out_of_memory=out_of_memory,
        # Its last output may have found no room either.
        no_room=no_room(task.paths.task) if returncode else "",
    )


def _script_failed_at(task: Attempt, ended: float) -> float:
    """Return when a script failed, by this node's clock; MLflow closes its open run only later, when the process ends.

    Python prints its traceback last, so that is when the log was last written. The log's time is the file server's; the
    time of progress.json, written now, shows how far its clock is off.
    """
    if task.error is not None and task.error.traceback.startswith(outcome.PYTHON_TRACEBACK):
        try:
            printed = os.stat(task.paths.log).st_mtime
            task.progress.flush(force=True)
            ahead = os.stat(task.progress.path).st_mtime - time.time()
            return min(printed - ahead - 0.1, ended)
        except OSError:
            pass
    return ended - 1.0


def _log_size(task: Attempt) -> int:
    try:
        return os.stat(task.paths.log).st_size
    except OSError:
        return 0


def _log_tail(task: Attempt, start: int) -> str:
    """Return the end of this attempt's log."""
    try:
        with open(task.paths.log, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(start, size - LOG_TAIL))
            return stream.read(LOG_TAIL).decode("utf-8", "replace")
    except OSError:
        return ""


def _collect(task: Attempt) -> None:
    deadline = time.monotonic() + task.grace_s / 4 if task.signals.stopped else None
    for note in outputs.collect(
        task.paths.code,
        task.working_directory,
        task.files,
        task.paths.collected,
        task.job.output_limit_mb,
        since_ns=int(task.started_s * 1e9),
        deadline=deadline,
    ):
        task.note(note)
    try:
        task.paths.collected.rmdir()  # only if empty
    except OSError:
        pass
