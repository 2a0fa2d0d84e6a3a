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
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Optional

from ..contract import records
from ..contract.records import PreparedJob, TaskExit
from . import outputs, payload, places, ranks, tracking, unpacking, variables, verdict, watching
from .attempt import Attempt, say
from .processes import Family, oom_kills
from .progress import ProgressFile, now
from .sampling import Sampler
from .signals import Signals
from .writing import TaskFailure, explained, no_room, write

GRACE_S = 8.0
"""Seconds that a payload has after SIGTERM, unless LOSSI_GRACE_S says otherwise: the scheduler kills a little later."""
KILL_PATIENCE_S = 0.5
"""Seconds that processes have which a task leaves behind."""
LOG_TAIL = 64 * 1024


def run(directory: Path, number: int, attempt: int, signals: Signals, rank: int = 0) -> int:
    """Run one task of a prepared job and return the exit code of the runner.

    Never raises for what can go wrong with a task: it ends in exit.json, or where that cannot be written, in the log.
    ``rank`` is that of this node among the task's.
    """
    started, started_s, began = now(), time.time(), time.monotonic()
    folder = directory / records.TASK_FOLDER / str(number)
    where: Optional[places.Places] = None
    try:
        job = records.load(PreparedJob, directory / records.SPEC)
        where = places.make(directory, number, os.environ, rank)
        if rank == 0:
            _forget_earlier(where.task, attempt)
        if attempt > 1:
            say(f"attempt {attempt} begins")
        progress = ProgressFile(where.progress, number, attempt, started)
        grace_s = float(os.environ.get("LOSSI_GRACE_S") or GRACE_S)
        task = Attempt(job, number, attempt, where, signals, progress, started, started_s, grace_s)
        task.ranks = ranks.of_environment(where.task, job.resources.nodes, rank)
        outcome, result = _attempt(task)
        record = replace(outcome, started=started, ended=now(), elapsed_s=round(time.monotonic() - began, 3))
    except Exception as error:  # noqa: BLE001 - the task's end must be on record, whatever it was
        reason = _reason(error)
        say(reason)
        result = verdict.of_failure(reason)
        if where is not None:
            Family(os.environ.get("LOSSI_JOB_ID", directory.name), number).end(0.0)
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
        written = _record_end(folder / ranks.account(rank), record)
    finally:
        if where is not None:
            where.remove()
    return result.status if written else result.status or 1


def _reason(error: Exception) -> str:
    """Return one sentence for the user; what nobody foresaw goes to the log in full."""
    if isinstance(error, OSError):
        return explained(error)
    if isinstance(error, (TaskFailure, ValueError)):
        return str(error)
    import traceback

    traceback.print_exc()
    return f"the runner itself failed: {type(error).__name__}: {error}"


def _record_end(path: Path, record: TaskExit) -> bool:
    """Write exit.json; on a full filesystem less important files make room for it. Return whether it is there."""
    data = records.dump(record)
    for last in (False, True):
        try:
            write(path, data)
            return True
        except OSError as error:
            if last:
                said = f"The task's state is {record.state}: {record.reason}"
                say(f"{path.name} could not be written: {explained(error)}. {said}")
            for name in (records.PROGRESS, records.USE):
                try:
                    os.unlink(path.parent / name)
                except OSError:
                    pass
    return False


def _forget_earlier(folder: Path, attempt: int) -> None:
    """Remove how an earlier attempt ended (exit.json says that a task is final) and what it was writing when it was killed."""
    names = [records.EXIT]
    if attempt > 1:
        names += [records.ENDING, *(name for name in os.listdir(folder) if name.startswith(".") and name.endswith(".part"))]
    for name in names:
        try:
            os.unlink(folder / name)
        except FileNotFoundError:
            pass


def _attempt(task: Attempt) -> "tuple[TaskExit, verdict.Verdict]":
    """Prepare, run and finish; what fails on the way is the task's verdict."""
    task.progress.phase("starting")
    task.parameters = _parameters(task)
    store = tracking.open_for(task.job, task.number, task.places, task.attempt, task.parameters)
    family = Family(task.job.id, task.number, task.places.rank if task.job.resources.nodes > 1 else None)
    sampler: Optional[Sampler] = None
    try:
        environment = store.environment(sys.executable)
        sampler = Sampler(family, task.places.use, environment)
        kills = oom_kills() or 0
        log_start = _log_size(task)
        process, events = _start(task, environment, store)
        sampler.start()
        returncode = watching.watch(task, process, events, family, store, sampler)
        watching.await_others(task, returncode, store)
        result = _judge(task, returncode, out_of_memory=(oom_kills() or 0) > kills, log_start=log_start)
    except (TaskFailure, OSError) as error:
        result = verdict.of_failure(explained(error) if isinstance(error, OSError) else str(error))
        if task.signals.stopped and not task.ran:
            told = task.ending()
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
    if task.ranks is not None:
        record = _together(record, task.ranks)
    task.progress.phase("done")
    return record, result


def _together(record: TaskExit, others: ranks.Ranks) -> TaskExit:
    """Return the task's account with what the processes on its further nodes used."""
    ends = [record, *others.exits.values()]
    used = [end.cpu_s for end in ends if end.cpu_s is not None]
    resident = [end.max_rss_mb for end in ends if end.max_rss_mb is not None]
    busy = [end.gpu_utilisation for end in ends if end.gpu_utilisation is not None]
    held = [end.gpu_memory_mb for end in ends if end.gpu_memory_mb is not None]
    return replace(
        record,
        cpu_s=round(sum(used), 3) if used else None,
        max_rss_mb=max(resident) if resident else None,  # what is asked for is per node
        gpu_utilisation=round(sum(busy) / len(busy), 2) if busy else None,
        gpu_memory_mb=round(sum(held), 1) if held else None,
        notes=[*record.notes, *others.notes()],
    )


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
        return watching.start(argv, environment, cwd=task.working_directory), None
    reader, writer = os.pipe()
    child = [os.fsencode(part) for part in (*variables.own_command(), "notebook", str(writer))]
    try:
        process = watching.start(child, environment, stdin=subprocess.PIPE, pass_fds=(writer,))
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
    if task.signals.stopped or (task.places.rank == 0 and (task.places.task / records.ENDING).exists()):
        task.signals.stopped_at = task.signals.stopped_at or time.time()
        raise TaskFailure("stopped before it had begun")


def _judge(task: Attempt, returncode: int, *, out_of_memory: bool, log_start: int) -> verdict.Verdict:
    ended = time.time()
    # Slurm signals every process, so that the payload may have ended before it was told; one that had succeeded has succeeded.
    stopped = task.ending() if task.told or (task.signals.stopped and returncode != 0) else None
    if returncode != 0 and task.error is None:
        task.error = verdict.error_in_log(_log_tail(task, log_start), returncode)
    if returncode != 0 and task.failed_s is None:
        task.failed_s = ended if task.job.kind == "notebook" else _script_failed_at(task, ended)
    if task.lost is not None and not (task.places.task / records.ENDING).exists():
        return verdict.of_rank(task.lost)
    return verdict.of_payload(
        returncode,
        stopped=stopped,
        error=task.error,
        kernel_signal=task.kernel_signal,
        out_of_memory=out_of_memory,
        # What it printed last may have found no room either.
        no_room=no_room(task.places.task) if returncode else "",
    )


def _script_failed_at(task: Attempt, ended: float) -> float:
    """Return when a script failed, by this node's clock: MLflow closes its open run only after that, when the process ends.

    Python's traceback is the last thing it prints, so that is when the log was last written. The log's time is the file
    server's; progress.json, written now, tells how far its clock is off.
    """
    if task.error is not None and task.error.traceback.startswith(verdict.PYTHON_TRACEBACK):
        try:
            printed = os.stat(task.places.log).st_mtime
            task.progress.flush(force=True)
            ahead = os.stat(task.progress.path).st_mtime - time.time()
            return min(printed - ahead - 0.1, ended)
        except OSError:
            pass
    return ended - 1.0


def _log_size(task: Attempt) -> int:
    try:
        return os.stat(task.places.log).st_size
    except OSError:
        return 0


def _log_tail(task: Attempt, start: int) -> str:
    """Return the end of what this attempt has printed."""
    try:
        with open(task.places.log, "rb") as stream:
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
        task.places.collected,
        task.job.output_limit_mb,
        since_ns=int(task.started_s * 1e9),
        deadline=deadline,
    ):
        task.note(note)
    try:
        task.places.collected.rmdir()  # nothing came
    except OSError:
        pass
