"""How Slurm's commands are started: cleaned environment, deadline, bounded output, through ssh. With real processes."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path

import pytest

from lossi import processes
from lossi.clusters import Cluster
from lossi.errors import Forbidden, InvalidInput, Unavailable
from lossi.jobs.schedulers.slurm import process
from lossi.jobs.schedulers.slurm.cli import CliClient
from lossi.processes import User

CI = Cluster(name="ci")
RECORDED = Path(__file__).parent / "recorded" / "22.05"


def command(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_only_a_clean_environment_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "SLURM_JWT",
        "SQUEUE_FORMAT",
        "SBATCH_PARTITION",
        "RUBYOPT",
        "BUNDLE_GEMFILE",
        "SECRET_KEY_BASE",
        "LD_PRELOAD_X",
    ):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("TZ", "Europe/Helsinki")
    monkeypatch.setenv("SLURM_CONF", "/etc/of/caller.conf")
    squeue = command(tmp_path, "squeue", "env; pwd; cat; exit 3")
    done = process.run(CI, [str(squeue)])
    assert done.status == 3
    lines = done.stdout.splitlines()
    assert lines.pop() == "/"
    variables = dict(line.split("=", 1) for line in lines)
    assert set(variables) - {"PWD", "OLDPWD", "SHLVL", "_"} == {
        *("HOME", "USER", "LOGNAME", "PATH", "LANG", "LC_ALL", "TZ"),
        *("SLURM_CONF", "SLURM_TIME_FORMAT", "SLURM_BITSTR_LEN"),
    }
    assert (variables["TZ"], variables["LC_ALL"], variables["SLURM_CONF"]) == ("UTC", "C.UTF-8", "/etc/of/caller.conf")


def test_the_sites_configuration_wins_and_sbatch_hands_no_setting_of_ours_to_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", "/etc/of/caller.conf")
    sbatch = command(tmp_path, "sbatch", "env | grep ^SLURM_")
    done = process.run(Cluster(name="ci", conf=Path("/etc/of/site.conf")), [str(sbatch)])
    assert done.stdout == "SLURM_CONF=/etc/of/site.conf\n"


def test_a_command_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    hanging = command(tmp_path, "squeue", f"echo 'squeue: error: retrying' >&2; sleep 9999 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(Unavailable, match=r"did not end within 0\.5 s: retrying"):
        process.run(CI, [str(hanging)], deadline_s=0.5)
    child = int((tmp_path / "child").read_text())
    end = time.monotonic() + 300
    while lives(child):
        assert time.monotonic() < end, "the child runs on"
        time.sleep(0.01)


def lives(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_grandchild_that_keeps_the_output_open_does_not_hang_us(tmp_path: Path) -> None:
    leaving = command(tmp_path, "squeue", "sleep 9999 & exit 0")
    with pytest.raises(Unavailable, match="did not end"):
        process.run(CI, [str(leaving)], deadline_s=0.5)


def test_too_much_output_is_refused(tmp_path: Path) -> None:
    loud = command(tmp_path, "squeue", "exec yes")
    with pytest.raises(Unavailable, match="more than 100000 bytes"):
        process.run(CI, [str(loud)], most_bytes=100_000)


def test_much_output_on_both_streams_is_read_whole(tmp_path: Path) -> None:
    loud = command(tmp_path, "squeue", "head -c 3000000 /dev/zero | tr '\\0' a; head -c 300000 /dev/zero | tr '\\0' b >&2")
    done = process.run(CI, [str(loud)])
    assert (len(done.stdout), len(done.stderr)) == (3_000_000, 300_000)


def test_a_missing_command_is_told_with_where_it_is_configured(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="could not be started") as caught:
        CliClient(Cluster(name="ci", bin=tmp_path)).queue()
    assert "bin_overrides" in caught.value.hint


def test_a_word_with_a_nul_is_refused() -> None:
    with pytest.raises(InvalidInput):
        process.run(CI, ["squeue", "a\0b"])


def test_a_submit_host_gets_every_word_as_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An ssh that does what sshd does: hands its words, joined with spaces, to the user's shell.
    command(
        tmp_path, "ssh", f'printf "%s\\n" "$@" > {tmp_path}/words\nwhile [ "$1" != -- ]; do shift; done; shift 2; exec sh -c "$*"'
    )
    command(tmp_path, "squeue", 'echo "$TZ $SLURM_BITSTR_LEN"; for word; do echo "[$word]"; done')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    awkward = ["a b", "$(touch x)", "it's", "%j;&|", "é\x1f"]
    done = process.run(Cluster(name="ci", submit_host="login1"), ["squeue", *awkward])
    assert done.stdout.split("\n") == ["UTC 0", *(f"[{word}]" for word in awkward), ""]
    words = (tmp_path / "words").read_text().split("\n")
    assert words[:4] == ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]


def test_a_host_whose_key_need_not_be_known() -> None:
    argv = process.argv_of(Cluster(name="ci", submit_host="login1", strict_host_checking=False), ["squeue", "x y"])
    assert "StrictHostKeyChecking=no" in argv
    assert argv[-1] == shlex.quote("x y")


def test_a_host_that_lacks_the_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(tmp_path, "ssh", "echo 'sh: squeue: not found' >&2; exit 127")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(Unavailable, match="not found on login1"):
        CliClient(Cluster(name="ci", submit_host="login1")).queue()


def test_the_database_is_asked_once_more_for_tasks_that_never_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "user", lambda: User("tester1"))
    command(tmp_path, "sacct", f'echo "$*" | grep -o "jobs=.*" >> {tmp_path}/asked; cat {RECORDED}/sacct.txt')
    client = CliClient(Cluster(name="ci", bin=tmp_path))
    rows = client.accounting({113: [0, 7]})
    assert [(row.task, row.tasks) for row in rows] == [(0, ()), (None, (range(3, 10),)), (None, (range(3, 10),))]
    assert (tmp_path / "asked").read_text().split() == ["jobs=113_0,113_7", "jobs=113"]
    assert [row.task for row in client.accounting({113: [0, 1]})] == [0, 1]
    assert (tmp_path / "asked").read_text().split()[2:] == ["jobs=113_0,113_1"]


def test_a_site_without_a_database_has_no_accounting_and_no_accounts(tmp_path: Path) -> None:
    for name in ("sacct", "sacctmgr"):
        command(tmp_path, name, "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    command(tmp_path, "squeue", f"cat {RECORDED}/squeue.txt")
    client = CliClient(Cluster(name="ci", bin=tmp_path))
    assert (client.accounting({1: None}), client.associations(), client.qos()) == ([], [], [])
    assert client.named("big", "2026-01-01T00:00:00Z") == [(115, "big")]


def test_cancelling_what_has_ended_is_no_error_but_another_users_job_is(tmp_path: Path) -> None:
    client = CliClient(Cluster(name="ci", bin=tmp_path))
    command(tmp_path, "scancel", "echo 'scancel: error: Kill job error on job id 9: Invalid job id specified' >&2; exit 1")
    client.cancel({9: None, 10: [1, 2]})
    command(tmp_path, "scancel", "echo 'scancel: error: Kill job error on job id 9: Access/permission denied' >&2; exit 1")
    with pytest.raises(Forbidden):
        client.cancel({9: None})
