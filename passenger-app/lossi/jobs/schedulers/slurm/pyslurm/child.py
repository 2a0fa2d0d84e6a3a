"""The child process that has PySlurm: one question in, one answer out.

Sent as text to another interpreter, possibly in another system's root folder: Python 3.9, standard library and PySlurm only.
It returns plain fields; `rows` makes records of them.

``answer(question)`` takes ``{"ask": …, "any_version": …, "cluster": …, …}`` and returns ``{"answer": …}`` or
``{"problem": conf|import|version|cluster|slurm|invalid, "text": …}``.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import pwd
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONF = ("/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/run/slurm/conf/slurm.conf")
"""Where libslurm looks when SLURM_CONF is not set."""
RELEASES = {36: "20.11", 37: "21.08", 38: "22.05", 39: "23.02", 40: "23.11"}
"""Major number of libslurm's ABI → Slurm's release; from 41 (24.05) on there are two releases a year."""
JOB_GONE = (2017, 2021)
"""ESLURM_INVALID_JOB_ID, ESLURM_ALREADY_DONE."""

COMMON = [
    "id",
    "name",
    "state",
    "state_reason",
    "array_id",
    "array_task_id",
    "array_tasks_waiting",
    "partition",
    "account",
    "qos",
    "num_nodes",
    "cpus",
    "submit_time",
    "eligible_time",
    "start_time",
    "end_time",
    "time_limit",
    "requeue_count",
    "exit_code",
    "exit_code_signal",
]
QUEUED = [*COMMON, "allocated_nodes", "priority", "gres_per_node"]
ACCOUNTED = [*COMMON, "cluster", "nodelist", "elapsed_time", "admin_comment"]
PARTITION = [
    "name",
    "state",
    "is_default",
    "max_time",
    "default_time",
    "min_nodes",
    "max_nodes",
    "total_nodes",
    "max_cpus_per_node",
    "max_memory_per_node",
    "max_memory_per_cpu",
    "default_memory_per_cpu",
    "default_memory_per_node",
    "allowed_accounts",
    "denied_accounts",
    "allowed_qos",
    "denied_qos",
    "allowed_groups",
    "qos",
]
NODE = ["partitions", "total_cpus", "real_memory", "configured_gres", "available_features", "state"]
ASSOCIATION = [
    "cluster",
    "account",
    "partition",
    "qos",
    "is_default",
    "max_jobs",
    "max_submit_jobs",
    "max_wall_time_per_job",
    "group_jobs",
    "group_submit_jobs",
]
ASSOCIATION_TRES = ["group_tres", "group_tres_mins", "max_tres_mins_per_job", "max_tres_per_job", "max_tres_per_node"]
CONFIGURATION = [
    "version",
    "cluster_name",
    "max_array_size",
    "max_job_count",
    "min_job_age",
    "accounting_storage_type",
    "accounting_storage_enforce",
    "preempt_type",
    "preempt_mode",
    "job_requeue",
    "gres_types",
]


class Problem(Exception):
    """Why there is no answer, with its kind."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def answer(question: dict[str, Any]) -> dict[str, Any]:
    try:
        slurm = load(question)
        return {"answer": ASKED[question["ask"]](slurm, question)}
    except Problem as problem:
        return {"problem": problem.kind, "text": str(problem)}
    except Exception as error:
        # Slurm's messages come as PySlurm's RPCError; PySlurm's ValueErrors are about its arguments.
        kind = "invalid" if isinstance(error, ValueError) else "slurm"
        return {"problem": kind, "text": str(error) or type(error).__name__}


def load(question: dict[str, Any]) -> Any:
    """Import PySlurm if that will not end the process."""
    named = os.environ.get("SLURM_CONF")
    if not any(Path(path).is_file() for path in ([named] if named else CONF)):
        raise Problem("conf", "no such file: " + (named or ", ".join(CONF)))
    try:
        slurm = importlib.import_module("pyslurm")
    except ImportError as error:
        raise Problem("import", str(error)) from error
    expected, here = ".".join(slurm.__version__.split(".")[:2]), release(library())
    if expected != here and not question["any_version"]:
        raise Problem("version", f"PySlurm {slurm.__version__} is made for Slurm {expected}, and libslurm here is of {here}")
    local = importlib.import_module("pyslurm.settings").LOCAL_CLUSTER
    if question["cluster"] and question["cluster"] != local:
        raise Problem("cluster", f"slurm.conf is that of cluster {local}")
    return slurm


def library() -> ctypes.CDLL:
    """Return the libslurm that PySlurm has loaded, for what PySlurm cannot do."""
    with Path("/proc/self/maps").open() as maps:
        paths = sorted({line.split()[-1] for line in maps if "libslurm" in line})
    return ctypes.CDLL(paths[0] if paths else None, use_errno=True)


def release(libslurm: ctypes.CDLL) -> str:
    libslurm.slurm_api_version.restype = ctypes.c_long
    major = libslurm.slurm_api_version() >> 16
    since = major - 41
    return RELEASES.get(major) or f"{24 + since // 2}.{11 if since % 2 else '05'}"


def fields(thing: Any, names: list[str]) -> dict[str, Any]:
    """Return those attributes that this PySlurm has and can read: one odd value must not hide a whole queue."""
    values = {}
    for name in names:
        try:
            values[name] = getattr(thing, name)
        except Exception:
            values[name] = None
    return values


def tres(resources: Any) -> dict[str, int]:
    """Return trackable resources as {name: number}, memory in MiB."""
    if resources is None:
        return {}
    single = [getattr(resources, name, None) for name in ("cpu", "mem", "node", "billing", "energy")]
    all_resources = [*single, *resources.gres.values()]
    return {resource.type_and_name: resource.count for resource in all_resources if resource is not None}


def mine(jobs: Any) -> list[Any]:
    return [job for job in jobs.values() if job.user_id == os.getuid()]


def queue(slurm: Any, question: dict[str, Any]) -> list[dict[str, Any]]:
    # Otherwise the expression of an array's waiting tasks is cut after 64 characters.
    os.environ["SLURM_BITSTR_LEN"] = "0"
    return [dict(fields(job, QUEUED), tres=tres(job.tres)) for job in mine(slurm.Jobs.load())]


def accounting(slurm: Any, question: dict[str, Any]) -> list[dict[str, Any]]:
    if not has_accounts(slurm.slurmctld.Config.load()):
        return []
    conditions = {"ids": question["ids"]}
    if question["since"]:
        conditions["start_time"] = question["since"]
    rows = []
    for job in mine(slurm.db.Jobs.load(slurm.db.JobFilter(**conditions))):
        steps = [
            {"ntasks": step.ntasks, "max_rss": step.stats.max_resident_memory, "energy": step.stats.consumed_energy}
            for step in job.steps.values()
        ]
        more = {"steps": steps, "cpu_time": job.stats.total_cpu_time, "tres": tres(job.allocated_tres)}
        rows.append(dict(fields(job, ACCOUNTED), cancelled_by=uid(job.cancelled_by), **more))
    return rows


def uid(name: str | None) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid if name else None
    except KeyError:
        return int(name) if name and name.isdigit() else None


def named(slurm: Any, question: dict[str, Any]) -> list[tuple[int, str]]:
    jobs = [(job, job.allocated_nodes) for job in mine(slurm.Jobs.load())]
    if has_accounts(slurm.slurmctld.Config.load()):
        conditions = slurm.db.JobFilter(users=[str(os.getuid())], start_time=question["since"])
        jobs += [(job, job.nodelist) for job in mine(slurm.db.Jobs.load(conditions))]
    # A job that failed without ever having a node is a refused submission.
    accepted = [job for job, nodes in jobs if job.state != "FAILED" or (nodes and nodes != "None assigned")]
    names = {job.array_id or job.id: job.name or "" for job in accepted}
    return [(number, name) for number, name in sorted(names.items()) if name.startswith(question["prefix"])]


def has_accounts(configuration: Any) -> bool:
    return str(configuration.accounting_storage_type).endswith("slurmdbd")


def submit(slurm: Any, question: dict[str, Any]) -> int:
    options = dict(question["options"])
    if question["signal_s"]:
        options["signal"] = {"signal": int(signal.SIGUSR1), "time": question["signal_s"], "batch_only": True}
    return int(slurm.JobSubmitDescription(**options).submit())


def cancel(slurm: Any, question: dict[str, Any]) -> None:
    """Cancel jobs and ``id_[tasks]``.

    With libslurm itself: PySlurm does not know tasks that have not started, and reports an old error as that of this call.
    """
    kill = library().slurm_kill_job2
    kill.argtypes = [ctypes.c_char_p, ctypes.c_uint16, ctypes.c_uint16, ctypes.c_char_p]
    for target in question["targets"]:
        ctypes.set_errno(0)
        code = kill(target.encode(), int(signal.SIGKILL), 0, None)
        number = ctypes.get_errno() if code == -1 else code
        if code and number not in JOB_GONE:
            raise Problem("slurm", slurm.slurm_strerror(number))


def configuration(slurm: Any, question: dict[str, Any]) -> dict[str, Any]:
    return fields(slurm.slurmctld.Config.load(), CONFIGURATION)


def partitions(slurm: Any, question: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        fields(partition, PARTITION)
        for partition in slurm.Partitions.load().values()
        if not partition.is_hidden and not partition.is_root_only
    ]


def nodes(slurm: Any, question: dict[str, Any]) -> list[dict[str, Any]]:
    return [fields(node, NODE) for node in slurm.Nodes.load().values()]


def associations(slurm: Any, question: dict[str, Any]) -> list[dict[str, Any]]:
    if not has_accounts(slurm.slurmctld.Config.load()):
        return []
    conditions = slurm.db.AssociationFilter(users=[pwd.getpwuid(os.getuid()).pw_name])
    items = slurm.db.Associations.load(conditions).values()
    return [
        dict(fields(association, ASSOCIATION), **{name: tres(getattr(association, name)) for name in ASSOCIATION_TRES})
        for association in items
    ]


def qos(slurm: Any, question: dict[str, Any]) -> list[str]:
    return sorted(slurm.db.QualitiesOfService.load()) if has_accounts(slurm.slurmctld.Config.load()) else []


ASKED: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    function.__name__: function
    for function in (queue, accounting, named, submit, cancel, configuration, partitions, nodes, associations, qos)
}
