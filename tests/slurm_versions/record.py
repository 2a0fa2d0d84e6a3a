"""Writes what Slurm's commands print of all kinds of jobs, with the argv of the client, for the unit tests of its parsers.

``python tests/slurm_versions/record.py FOLDER`` on the clusters of ``tests/slurm/versions.sh``, which has it as ``record``.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import time
from pathlib import Path

from version_cluster import VersionCluster, as_user, home_of

from lossi.jobs.schedulers.slurm import process
from lossi.jobs.schedulers.slurm.cli.commands import Command, sacct, sacctmgr, scontrol, sinfo, squeue

USER = "lossi-tester1"
ANONYMOUS = "tester1"
"""The name in what was recorded, whatever the user is called here."""
JOBS: dict[str, tuple[list[str], str]] = {
    "finished": ([], "srun --ntasks=1 sleep 2"),
    "fail42": ([], "exit 42"),
    "kill9": ([], "kill -9 $$"),
    "gpu": (["--partition=gpu", "--gres=gpu:a100:2"], "sleep 1"),
    "pergpu": (["--partition=gpu", "--gpus-per-node=a100:1", "--hold"], "true"),
    "multi": (["--nodes=2", "--ntasks-per-node=2"], "srun sleep 2"),
    "cancelled": (["--array=0-2"], "sleep 100"),
    "holes": (["--array=1,3,5-9,20-260:5", "--hold"], "true"),
    "big": (["--array=0-9999%50", "--hold"], "true"),
    "requeued": (["--requeue"], "sleep 100"),
    "arrayrun": (["--array=0-5%3"], "sleep 100"),
    'bar|new\nline 😀 "q"': (["--hold"], "true"),
    "waits": (["--begin=now+1hour"], "true"),
}


def record(cluster: VersionCluster, folder: Path) -> None:
    target = cluster.model("slurm_cli")
    place = home_of(USER) / f"record-{cluster.suite}"

    def run(argv: list[str]) -> str:
        done = process.run(target, argv, deadline_s=60)
        assert done.status == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def submit() -> dict[str, int]:
        place.mkdir()
        ids = {}
        for number, (name, (options, body)) in enumerate(JOBS.items()):
            script = place / f"{number}.sh"
            script.write_text(f"#!/bin/sh\nexport SLURM_EXPORT_ENV=ALL\n{body}\n")
            more = [f"--job-name={name}", f"--chdir={place}", "--mem=100", "--time=10", "--export=NONE", *options, str(script)]
            ids[name] = int(run([target.command("sbatch"), "--parsable", *more]))
        return ids

    def states() -> dict[tuple[int, str], str]:
        return {
            (row.job_id, str(row.tasks)): row.state
            for row in squeue.Squeue(ended=True).parse(run(squeue.Squeue(ended=True).argv(target)))
        }

    def until(name: str, words: set[str]) -> None:
        end = time.monotonic() + 300
        while not {state for (job, _), state in as_user(USER, states).items() if job == ids[name]} & words:
            assert time.monotonic() < end, f"{name} is not {words}"
            time.sleep(0.2)

    ids = as_user(USER, submit)
    try:
        for name in ("finished", "fail42", "kill9", "gpu", "multi"):
            until(name, {"COMPLETED", "FAILED"})
        for name in ("cancelled", "requeued", "arrayrun"):
            until(name, {"RUNNING"})
        as_user(USER, lambda: run([target.command("scancel"), str(ids["cancelled"])]))
        as_user(USER, lambda: run([target.command("scontrol"), "requeue", str(ids["requeued"])]))
        until("cancelled", {"CANCELLED"})
        until("requeued", {"PENDING"})
        jobs = tuple(str(job) for job in ids.values())
        commands: dict[str, Command[object]] = {
            "squeue": squeue.Squeue(),
            "squeue-all": squeue.Squeue(ended=True),
            "sacct": sacct.Sacct(USER, jobs),
            "sacct-names": sacct.SacctNames(USER, "2020-01-01T00:00:00"),
            "sinfo": sinfo.Sinfo(),
            "scontrol-partitions": scontrol.ShowPartitions(),
            "scontrol-config": scontrol.ShowConfig(),
            "sacctmgr-associations": sacctmgr.ShowAssociations(USER),
            "sacctmgr-qos": sacctmgr.ShowQos(),
        }
        while not all(f"{job}|" in run(sacct.Sacct(USER, jobs).argv(target)) for job in jobs):  # slurmdbd hears of it late
            time.sleep(0.2)
        folder.mkdir(parents=True, exist_ok=True)
        for name, command in commands.items():
            text = as_user(USER, functools.partial(run, command.argv(target)))
            text = text.replace(USER, ANONYMOUS).replace(os.uname().nodename, "host")
            (folder / f"{name}.txt").write_bytes(text.encode())
    finally:
        as_user(USER, lambda: run([target.command("scancel"), *map(str, ids.values())]))
        shutil.rmtree(place)


if __name__ == "__main__":
    for entry in json.loads(Path(os.environ["LOSSI_SLURM_VERSIONS"]).read_text()):
        record(VersionCluster(**entry), Path(sys.argv[1]) / entry["release"])
