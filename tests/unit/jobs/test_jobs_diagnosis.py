"""What killed a task, judged by state, error and log; and what is suggested."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
from hypothesis import given, strategies as st

from lossi.contract.records import PreparedJob, Progress, Resources, TaskError
from lossi.contract.states import STATES
from lossi.jobs.explain import amounts
from lossi.jobs.explain.causes import Kind
from lossi.jobs.explain.diagnose import diagnose
from lossi.jobs.models import Task
from lossi.jobs.state.refresh import NEVER_SUBMITTED
from lossi.jobs.submit.spec import validated
from lossi.units import format_memory, format_time, parse_memory, parse_time

JOB = PreparedJob("j", "n", "notebook", "/p", "ann", "", resources=Resources(cpus=4, memory_mb=2048, time_limit_s=3600))
KINDS = set(get_args(Kind))
STEPD_TIME = "slurmstepd: error: *** JOB 12 ON cpu01 CANCELLED AT 2024-05-01T10:00:00 DUE TO TIME LIMIT ***\n"
STEPD_OOM = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=12.batch. Some of your processes may have been killed.\n"
STEPD_OLD_OOM = "slurmstepd: error: Exceeded job memory limit\n"
RECORDED_OOM = (  # Slurm 22.05.8 without cgroups, JobAcctGatherParams=OverMemoryKill: the job is FAILED 0:9
    "slurmstepd-cpu01: error: StepId=129.batch exceeded memory limit (219889664 > 104857600), being killed\n"
    "slurmstepd-cpu01: error: *** JOB 129 ON cpu01 CANCELLED AT 2026-11-26T06:09:08 ***\n"
)
STEPD_PREEMPTED = "slurmstepd: error: *** JOB 12 ON cpu01 CANCELLED AT 2024-05-01T10:00:00 DUE TO PREEMPTION ***\n"
CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 39.41 GiB total capacity; 36.12 GiB already allocated; 1.01 GiB free)"
)
TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n    f()\n'


def task(state: str = "failed", **more: Any) -> Task:
    return Task(job_id="j", task=0, state=state, **more)


def error(name: str, message: str = "", **more: Any) -> TaskError:
    return TaskError(name, message, **more)


@pytest.mark.parametrize(
    ("dead", "log", "kind"),
    [
        (task("timed_out"), "", "time_limit"),
        (task("out_of_memory"), "", "memory"),
        (task("node_failed", host="cpu01"), "", "node_failure"),
        (task("preempted"), "", "preemption"),
        (task("cancelled", reason="cancelled by ann"), "", "cancelled"),
        (task("cancelled", reason="DependencyNeverSatisfied"), "", "dependency"),
        (task("failed", scheduler_state="BOOT_FAIL"), "", "node_failure"),
        (task("failed", scheduler_state="DEADLINE"), "", "time_limit"),
        (task("failed", scheduler_state="TIMEOUT"), "", "time_limit"),
        # Slurm without cgroups: FAILED 0:9, and only the numbers or a line in the log say why.
        (task(signal=9, max_rss_mb=2000.0), "", "memory"),
        (task(exit_code=137, max_rss_mb=2000.0), "", "memory"),
        (task(signal=9, max_rss_mb=100.0), "", "signal"),
        (task(signal=9, max_rss_mb=100.0), "/var/spool/job/script: line 9: 123 Killed   python x.py\n", "memory"),
        (task(signal=9), "x\nKilled\n", "memory"),
        (task(signal=9), STEPD_OOM, "memory"),
        (task(signal=9), STEPD_OLD_OOM, "memory"),
        (task(signal=9), RECORDED_OOM, "memory"),
        (task("cancelled"), STEPD_TIME, "time_limit"),
        (task("cancelled"), STEPD_PREEMPTED, "preemption"),
        (task(signal=11), "", "signal"),
        (task(error=error("MemoryError", "Unable to allocate 18.6 GiB for an array with shape (50000, 50000)")), "", "memory"),
        (task(error=error("numpy._core._exceptions._ArrayMemoryError", "")), "", "memory"),
        (task(error=error("Error", "cannot allocate vector of size 74.5 Gb")), "", "memory"),
        (task(error=error("RuntimeError", "DataLoader worker (pid 7) is killed by signal: Killed.")), "", "memory"),
        (task(error=error("ValueError", "no")), STEPD_OOM, "memory"),
        (task(error=error("OutOfMemoryError", CUDA)), "", "gpu_memory"),
        (task(error=error("torch.cuda.OutOfMemoryError", "")), "", "gpu_memory"),
        (task(error=error("RuntimeError", "HIP out of memory. Tried to allocate 2 GiB")), "", "gpu_memory"),
        (task(exit_code=1), f"{TRACEBACK}torch.OutOfMemoryError: {CUDA}\n", "gpu_memory"),
        (task(error=error("RuntimeError", "No CUDA GPUs are available")), "", "gpu_unavailable"),
        (task(error=error("OSError", "[Errno 28] No space left on device: 'x'")), "", "disk_full"),
        (task(exit_code=1), "cp: error writing 'x': Disk quota exceeded\n", "disk_full"),
        (task(error=error("ModuleNotFoundError", "No module named 'torch'")), "", "import_error"),
        (task(exit_code=1), f"{TRACEBACK}ImportError: libcuda.so.1\n", "import_error"),
        (task(error=error("Error", "there is no package called ‘ranger’")), "", "import_error"),
        (task(exit_code=127, reason="the environment could not be started; the end of the log says why"), "", "environment"),
        (task(exit_code=255), "FATAL: while loading image: not a SIF\n", "environment"),
        (task(error=error("KernelError", "the kernel 'ir' did not start: see the log")), "", "environment"),
        (task(error=error("Refused", "the environment has no kernel for r")), "", "environment"),
        (task(error=error("ValueError", "no", cell=3)), "", "python_error"),
        (task(exit_code=1), f"{TRACEBACK}ValueError: no\n", "python_error"),
        (task(error=error("Error", "x", traceback="Error in f() : x\nExecution halted")), "", "r_error"),
        (task(error=error("KeyboardInterrupt", ""), signal=15), "", "signal"),
        (task(error=error("exit code 3", "bye"), exit_code=3), "bye\n", "exit_code"),
        (task(reason=NEVER_SUBMITTED), "", "not_submitted"),
        (task(), "", "unknown"),
        (task("unknown", reason="its directory cannot be read"), "", "unknown"),
        (task("succeeded"), STEPD_OOM, "none"),
        (task("running"), "", "none"),
        # What was survived, or belongs to an earlier attempt, is not the cause.
        (task(error=error("ValueError", "no")), "MemoryError: caught\nNo space left on device\n", "python_error"),
        (task(exit_code=3), "Killed\n" + "on\n" * 100, "exit_code"),
        (task(error=error("ValueError", "no"), attempt=2), STEPD_PREEMPTED, "python_error"),
        (task(signal=11, attempt=2), STEPD_PREEMPTED, "signal"),
    ],
)
def test_the_cause_is_found(dead: Task, log: str, kind: str) -> None:
    assert diagnose(dead, JOB, log).kind == kind


def test_every_cause_has_an_answer() -> None:
    from lossi.jobs.explain import diagnose, explanations

    assert set(diagnose._ANSWERS) == set(explanations.LABELS) == KINDS


def test_the_scheduler_log_counts_too() -> None:
    assert diagnose(task(signal=9), JOB, "nothing\n", STEPD_OOM).kind == "memory"


@pytest.mark.parametrize(
    ("asked", "used", "wanted"),
    [(2048, 1990.0, "4G"), (2048, None, "4G"), (2048, 6000.0, "12G"), (None, 6000.0, "12G"), (65536, 60000.0, "128G")],
)
def test_suggested_memory_follows_from_request_and_use(asked: int | None, used: float | None, wanted: str) -> None:
    job = dataclasses.replace(JOB, resources=Resources(memory_mb=asked))
    diagnosis = diagnose(task("out_of_memory", max_rss_mb=used), job, "")
    assert diagnosis.changes == {"resources": {"memory": wanted}}
    assert not diagnosis.again


def test_suggested_memory_is_per_node() -> None:
    job = dataclasses.replace(JOB, resources=Resources(nodes=2, memory_mb=None))
    diagnosis = diagnose(task("out_of_memory", memory_mb=8192.0, max_rss_mb=8000.0, nodes=2), job, "")
    assert diagnosis.changes == {"resources": {"memory": "8G"}}


def test_without_numbers_more_memory_is_suggested_in_words_only() -> None:
    diagnosis = diagnose(task("out_of_memory"), dataclasses.replace(JOB, resources=Resources()), "")
    assert diagnosis.changes == {} and "--memory" in diagnosis.suggestion


def test_the_sentence_has_the_limit_and_the_cell() -> None:
    progress = Progress(0, cell=7, cells=12, first_line="model.fit(x)", elapsed_s=3600.0)
    diagnosis = diagnose(task("timed_out", time_limit_s=3600.0, progress=progress), JOB, "")
    assert diagnosis.sentence == "The task reached its time limit of 1 h, in cell 7 of 12 (model.fit(x))."
    assert diagnosis.changes == {"resources": {"time": "02:00:00"}}
    assert (diagnosis.evidence.cell, diagnosis.evidence.cells, diagnosis.evidence.first_line) == (7, 12, "model.fit(x)")


def test_suggested_time_follows_from_finished_cells() -> None:
    progress = Progress(0, cell=6, cells=20, elapsed_s=3600.0, estimate_s=10800.0)
    diagnosis = diagnose(task("timed_out", progress=progress), JOB, "")
    assert diagnosis.changes == {"resources": {"time": "05:00:00"}} and "about 4 h" in diagnosis.suggestion
    early = Progress(0, cell=2, cells=20, elapsed_s=3600.0, estimate_s=360000.0)
    assert diagnose(task("timed_out", progress=early), JOB, "").changes == {"resources": {"time": "02:00:00"}}
    short = Progress(0, cell=6, cells=7, elapsed_s=3500.0, estimate_s=1.0)
    assert diagnose(task("timed_out", progress=short), JOB, "").changes == {"resources": {"time": "02:00:00"}}


@pytest.mark.parametrize(("by", "again"), [("ann", True), ("you", True), ("root", False)])
def test_the_diagnosis_names_who_cancelled(by: str, again: bool) -> None:
    diagnosis = diagnose(task("cancelled", reason=f"cancelled by {by}"), JOB, "")
    assert diagnosis.sentence == f"The task was cancelled by {by}."
    assert diagnosis.again is again
    early = diagnose(task("cancelled", reason=f"cancelled by {by} before it started"), JOB, "")
    assert early.sentence == f"The task was cancelled by {by} before it started."
    assert early.again is again


def test_an_unexplained_kill_suggests_more_memory() -> None:
    diagnosis = diagnose(task(signal=9), JOB, "")
    assert diagnosis.kind == "signal" and "nothing proves it" in diagnosis.sentence
    assert diagnosis.changes == {"resources": {"memory": "4G"}}


def test_a_job_without_gpus_is_told_to_request_one() -> None:
    missing = task(error=error("RuntimeError", "No CUDA GPUs are available"))
    assert diagnose(missing, JOB, "").changes == {"resources": {"gpus": 1}}
    with_gpu = dataclasses.replace(JOB, resources=Resources(gpus=1))
    assert diagnose(missing, with_gpu, "").changes == {}


def test_evidence_is_harmless_and_short() -> None:
    log = "".join(f"line {number} \x1b[31mred\x1b]0;title\x07\n" for number in range(100)) + "x" * 5000
    diagnosis = diagnose(task(error=error("ValueError\x1b[2J", "no\x1b[31m\nmore", cell=2)), JOB, log)
    assert len(diagnosis.evidence.lines) == 20 and max(map(len, diagnosis.evidence.lines)) <= 300
    assert "\x1b" not in diagnosis.model_dump_json() and "\\u001b" not in diagnosis.model_dump_json()
    assert diagnosis.sentence == "The program failed, in cell 2: ValueError: no."
    assert (diagnosis.evidence.exception, diagnosis.evidence.message) == ("ValueError", "no\nmore")


NUMBERS = st.none() | st.floats() | st.sampled_from([0.0, -1.0, 1e300, float("inf")])
WHOLE = st.none() | st.integers(-(2**70), 2**70)
TEXT = st.text(max_size=40) | st.sampled_from(
    [STEPD_OOM, STEPD_TIME, TRACEBACK, CUDA, "Killed", "cancelled by x", "ValueError: "]
)
ERRORS = st.none() | st.builds(TaskError, TEXT, TEXT, st.none() | st.integers(-1, 99), TEXT)
PROGRESS = st.none() | st.builds(
    Progress,
    task=st.just(0),
    cell=st.integers(-1, 9),
    cells=st.integers(-1, 9),
    first_line=TEXT,
    elapsed_s=st.floats(),
    estimate_s=NUMBERS,
)
RESOURCES = st.builds(
    Resources,
    cpus=st.integers(1, 64),
    memory_mb=st.none() | st.integers(0, 2**70),
    gpus=st.integers(0, 8),
    time_limit_s=st.none() | st.integers(0, 2**70),
    nodes=st.integers(0, 9),
)


@given(
    values=st.fixed_dictionaries(
        {
            "state": st.sampled_from(STATES),
            "scheduler_state": st.sampled_from(["", "TIMEOUT", "CANCELLED by 1000", "NODE_FAIL", "?"]),
            "reason": TEXT,
            "exit_code": WHOLE,
            "signal": WHOLE,
            "attempt": st.integers(0, 3),
            "elapsed_s": NUMBERS,
            "max_rss_mb": NUMBERS,
            "memory_mb": NUMBERS,
            "time_limit_s": NUMBERS,
            "nodes": st.none() | st.integers(-1, 9),
            "error": ERRORS,
            "progress": PROGRESS,
        }
    ),
    resources=RESOURCES,
    log=TEXT,
    scheduler_log=TEXT,
)
def test_any_task_has_a_sentence_and_valid_changes(
    values: dict[str, Any], resources: Resources, log: str, scheduler_log: str
) -> None:
    job = dataclasses.replace(JOB, resources=resources)
    diagnosis = diagnose(Task(job_id="j", task=0, **values), job, log, scheduler_log)
    assert diagnosis.sentence.strip(" .") and diagnosis.kind in KINDS
    assert (diagnosis.kind == "none") == (values["state"] in ("queued", "running", "succeeded"))
    diagnosis.model_dump_json()
    if diagnosis.changes:
        validated({"command": ["true"], **diagnosis.changes})


@given(st.floats(0, 1e15))
def test_amounts_are_rounded_up_to_a_valid_request(amount: float) -> None:
    memory, time = amounts.round_memory(amount), amounts.round_time(amount)
    assert memory >= min(amount, 2**40) and memory <= max(1.5 * amount, amounts.LEAST_MEMORY_MB)
    assert time >= min(amount, 366 * 86400)
    assert parse_memory(format_memory(memory)) == memory
    assert parse_time(format_time(time)) == time
