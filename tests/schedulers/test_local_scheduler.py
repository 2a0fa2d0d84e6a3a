"""The local scheduler passes the contract, and does what only a scheduler of one's own machine must."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest
from local_support import GRACE_S, SLOTS
from scheduler_contract import SchedulerContract
from scheduler_jobs import JobFactory, eventually, lives

from lossi.contract import records
from lossi.contract.records import Ending, TaskExit
from lossi.contract.states import CANCELLED, FAILED, OUT_OF_MEMORY, QUEUED, SUCCEEDED, TIMED_OUT
from lossi.errors import Forbidden, InvalidInput, Unavailable
from lossi.jobs.schedulers.local import machine
from lossi.jobs.schedulers.local.adapter import LocalScheduler

WAIT_FOR_GO = "until [ -e go ]; do sleep 0.02; done"


class TestLocalScheduler(SchedulerContract):
    """The contract, and more of the same kind."""

    # -- order and room ----------------------------------------------------------------------------------------------

    def test_jobs_start_in_the_order_of_submission(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        order = job_factory.root / "order"
        prepared = [job_factory(f'echo "{n}.$LOSSI_TASK" >> {shlex.quote(str(order))}', tasks=2, cpus=SLOTS) for n in range(4)]
        for job in reversed(prepared):  # not by id
            self.submit(scheduler, job)
        for job in prepared:
            self.until_over(scheduler, job)
        assert order.read_text().split() == [f"{n}.{task}" for n in (3, 2, 1, 0) for task in (0, 1)]

    def test_no_more_tasks_at_once_than_slots(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("echo + >> at; sleep 0.05; echo - >> at", tasks=12)
        self.submit(scheduler, prepared)
        self.until_over(scheduler, prepared)
        at_once = peak = 0
        for sign in prepared.read("at").split():
            at_once += 1 if sign == "+" else -1
            peak = max(peak, at_once)
        assert peak == SLOTS

    @pytest.mark.parametrize("cpus", [SLOTS, 500])
    def test_task_that_asks_for_all_cores_or_more_runs_alone(
        self, scheduler: LocalScheduler, job_factory: JobFactory, cpus: int
    ) -> None:
        prepared = job_factory(
            "mkdir alone || echo together >> wrong; sleep 0.05; rmdir alone; echo $OMP_NUM_THREADS", tasks=3, cpus=cpus
        )
        self.submit(scheduler, prepared)
        assert self.until_over(scheduler, prepared).state == SUCCEEDED
        assert prepared.read("wrong") == ""
        assert prepared.log().strip() == str(cpus)

    def test_throttled_job_lets_the_next_one_pass(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        first = job_factory(WAIT_FOR_GO, tasks=3, max_parallel=1)
        second = job_factory("true")
        self.submit(scheduler, first)
        self.submit(scheduler, second)
        assert self.until_over(scheduler, second).state == SUCCEEDED
        assert len(self.look(scheduler, first).tasks) == 1
        (first.directory / "go").touch()
        assert self.until_over(scheduler, first).state == SUCCEEDED

    def test_tasks_wait_for_the_memory_that_others_asked_for(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        prepared = job_factory(
            "mkdir alone || echo together >> wrong; sleep 0.05; rmdir alone",
            tasks=3,
            memory_mb=int(machine.total_memory_mb() * 0.6),
        )
        self.submit(scheduler, prepared)
        assert self.until_over(scheduler, prepared).state == SUCCEEDED
        assert prepared.read("wrong") == ""

    def test_waiting_job_is_queued_and_only_known_tasks_are_listed(
        self, scheduler: LocalScheduler, job_factory: JobFactory
    ) -> None:
        first = job_factory(f"echo up >> up; {WAIT_FOR_GO}", cpus=SLOTS)
        second = job_factory("true", tasks=100)
        self.submit(scheduler, first)
        self.submit(scheduler, second)
        self.until_written(first, "up")
        view = self.look(scheduler, second)
        assert (view.known, view.state, dict(view.tasks)) == (True, QUEUED, {})
        assert view.reason
        (first.directory / "go").touch()
        self.until_over(scheduler, second)

    def test_ten_thousand_tasks_are_queued_and_cancelled(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("sleep 60", tasks=10_000)
        self.submit(scheduler, prepared)
        self.cancel(scheduler, prepared)
        view = self.until_over(scheduler, prepared)
        assert {task.state for task in view.tasks.values()} == {CANCELLED}
        assert (prepared.directory / "local.jsonl").stat().st_size < 10_000

    def test_tasks_run_in_order_when_one_may_run_at_a_time(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("date +%s.%N", tasks=40, max_parallel=1)
        self.submit(scheduler, prepared)
        self.until_over(scheduler, prepared)
        times = [float(prepared.log(n)) for n in range(40)]
        assert times == sorted(times)

    # -- the environment of a task -------------------------------------------------------------------------------------

    def test_task_gets_a_clean_environment(
        self, scheduler: LocalScheduler, job_factory: JobFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SECRET_KEY_BASE", "secret")
        monkeypatch.setenv("RUBYOPT", "-rbundler/setup")
        monkeypatch.setenv("PYTHONPATH", "/nowhere")
        monkeypatch.setenv("LD_PRELOAD", "")
        prepared = job_factory("exec env", cpus=3)
        self.submit(scheduler, prepared)
        self.until_over(scheduler, prepared)
        variables = dict(line.split("=", 1) for line in prepared.log().splitlines())
        for name in ("PWD", "OLDPWD", "SHLVL", "_"):  # the shell's own
            variables.pop(name, None)
        assert set(variables) == {
            *("HOME", "PATH", "USER", "LOGNAME", "SHELL", "LANG", "TMPDIR", "LOSSI_JOB_ID", "LOSSI_TASK"),
            *("OMP_NUM_THREADS", "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
        }
        assert (variables["OMP_NUM_THREADS"], variables["CUDA_VISIBLE_DEVICES"], variables["ROCR_VISIBLE_DEVICES"]) == (
            "3",
            "",
            "",
        )

    def test_gpus_are_given_to_one_task_at_a_time(
        self, scheduler: LocalScheduler, job_factory: JobFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.give_gpus(tmp_path, monkeypatch, 2)
        assert scheduler.capabilities.max_gpus == 2
        prepared = job_factory(
            "gpu=$CUDA_VISIBLE_DEVICES; mkdir gpu$gpu || echo twice >> wrong; sleep 0.05; rmdir gpu$gpu; echo $gpu",
            tasks=6,
            gpus=1,
        )
        both = job_factory("echo $CUDA_VISIBLE_DEVICES $ROCR_VISIBLE_DEVICES", gpus=2)
        self.submit(scheduler, prepared)
        self.submit(scheduler, both)
        assert self.until_over(scheduler, prepared).state == SUCCEEDED
        assert prepared.read("wrong") == ""
        assert {prepared.log(n).strip() for n in range(6)} == {"0", "1"}
        self.until_over(scheduler, both)
        assert both.log() == "0,1 0,1\n"

    def test_gpus_beyond_those_of_the_machine_are_refused(
        self, scheduler: LocalScheduler, job_factory: JobFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.give_gpus(tmp_path, monkeypatch, 2)
        prepared = job_factory("true", gpus=3)
        with pytest.raises(InvalidInput, match="3 GPUs per task, this machine has 2"):
            scheduler.submit(prepared.job, prepared.directory)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        assert machine.gpu_ids() == ("1",)

    def give_gpus(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir()
        lines = "\n".join(f"GPU {n}: NVIDIA A100-SXM4-40GB (UUID: GPU-{n})" for n in range(number))
        program.write_text(f"#!/bin/sh\n[ \"$1\" = -L ] && echo '{lines}'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    # -- truth of the end ----------------------------------------------------------------------------------------------

    def exit_file(self, directory: Path, task: int = 0) -> TaskExit:
        return records.load(TaskExit, directory / "tasks" / str(task) / "exit.json")

    def test_account_of_the_runner_wins_over_the_exit_code(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        account = json.dumps({"task": 0, "state": FAILED, "reason": "cell 3 raised ValueError", "exit_code": 1})
        prepared = job_factory(f"echo {shlex.quote(account)} > tasks/0/exit.json")
        self.submit(scheduler, prepared)
        view = self.until_over(scheduler, prepared).tasks[0]
        assert (view.state, view.reason, view.exit_code) == (FAILED, "cell 3 raised ValueError", 1)
        assert self.exit_file(prepared.directory).written_by == "runner"

    @pytest.mark.parametrize("left", ["", "{", "[]", '{"task": 0}', '{"task": 0, "state": "running"}'])
    def test_task_without_a_readable_account_gets_one(
        self, scheduler: LocalScheduler, job_factory: JobFactory, left: str
    ) -> None:
        prepared = job_factory(f"printf %s {shlex.quote(left)} > tasks/0/exit.json; kill -KILL $$")
        self.submit(scheduler, prepared)
        view = self.until_over(scheduler, prepared).tasks[0]
        assert (view.state, view.signal, view.reason) == (FAILED, 9, "killed by SIGKILL (9)")
        account = self.exit_file(prepared.directory)
        assert (account.state, account.signal, account.written_by) == (FAILED, 9, "scheduler")
        assert account.host and account.started and account.ended

    def test_signal_of_a_command_in_the_script_is_named(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("sh -c 'kill -SEGV $$'; exit $?")
        self.submit(scheduler, prepared)
        view = self.until_over(scheduler, prepared).tasks[0]
        assert (view.exit_code, view.signal) == (139, None)
        assert "SIGSEGV" in view.reason

    def test_script_that_is_missing_is_a_failure(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("true")
        (prepared.directory / "script.sh").unlink()
        self.submit(scheduler, prepared)
        view = self.until_over(scheduler, prepared).tasks[0]
        assert view.state == FAILED and view.exit_code in (2, 127)  # dash, bash
        assert "script.sh" in prepared.log()

    # -- stopping ------------------------------------------------------------------------------------------------------

    def test_reason_is_written_before_the_signal(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("trap 'cp tasks/0/ending.json seen; exit 1' TERM; echo up > up; while :; do sleep 0.02; done")
        self.submit(scheduler, prepared)
        self.until_written(prepared, "up")
        self.cancel(scheduler, prepared)
        view = self.until_over(scheduler, prepared).tasks[0]
        assert records.load(Ending, prepared.directory / "seen") == Ending(CANCELLED, view.reason)
        assert view.reason.startswith("cancelled by ")
        assert self.exit_file(prepared.directory).state == CANCELLED

    def test_fallback_account_of_a_stopped_script_is_corrected(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        account = {"task": 0, "state": CANCELLED, "reason": "stopped", "exit_code": 143, "written_by": "script"}
        prepared = job_factory(
            f"cat > account <<'X'\n{json.dumps(account)}\nX\n"
            "trap 'cp account tasks/0/exit.json; exit 143' TERM; while :; do sleep 0.02; done",
            time_limit_s=1,
        )
        self.submit(scheduler, prepared)
        view = self.until_over(scheduler, prepared).tasks[0]
        corrected = self.exit_file(prepared.directory)
        assert view.state == corrected.state == TIMED_OUT
        assert (corrected.exit_code, corrected.notes) == (143, ["the script wrote: cancelled stopped"])

    def test_task_that_ended_before_it_was_told_to_keeps_its_own_end(
        self, scheduler: LocalScheduler, job_factory: JobFactory
    ) -> None:
        account = json.dumps({"task": 0, "state": SUCCEEDED, "exit_code": 0})
        prepared = job_factory(f"echo {shlex.quote(account)} > tasks/0/exit.json; echo up > up; sleep 60")
        self.submit(scheduler, prepared)
        self.until_written(prepared, "up")
        self.cancel(scheduler, prepared)
        assert self.until_over(scheduler, prepared).tasks[0].state == SUCCEEDED
        assert not (prepared.directory / "tasks/0/ending.json").exists()

    def test_grace_is_kept(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("trap 'date +%s.%N > told' TERM; echo up > up; while :; do date +%s.%N >> alive; sleep 0.01; done")
        self.submit(scheduler, prepared)
        self.until_written(prepared, "up")
        self.cancel(scheduler, prepared)
        self.until_over(scheduler, prepared)
        last = prepared.read("alive").split("\n")[-2]  # what follows the last newline may be cut off
        assert float(last) - float(prepared.read("told")) > GRACE_S * 0.8

    def test_stopping_task_says_so(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("trap 'echo told > told' TERM; echo up > up; while :; do sleep 0.01; done")
        self.submit(scheduler, prepared)
        self.until_written(prepared, "up")
        self.cancel(scheduler, prepared)
        self.until_written(prepared, "told")
        view = self.task(scheduler, prepared)
        assert (view.scheduler_state, view.reason[:12]) in {("STOPPING", "cancelled by"), ("ENDED", "cancelled by")}
        self.until_over(scheduler, prepared)

    def test_daemon_without_session_parent_and_environment_ends_too(
        self, scheduler: LocalScheduler, job_factory: JobFactory
    ) -> None:
        prepared = job_factory(
            "(env -i setsid sh -c 'echo $$ >> pids; exec sleep 600' &)\nuntil [ -e pids ] && [ -s pids ]; do sleep 0.01; done"
        )
        self.submit(scheduler, prepared)
        assert self.until_over(scheduler, prepared).state == SUCCEEDED
        self.until_gone(prepared.read("pids").split())

    def test_stopped_process_is_ended_too(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        prepared = job_factory(
            "trap 'echo tidy > tidied; exit 1' TERM; echo up > up; kill -STOP $$; while :; do sleep 0.02; done"
        )
        self.submit(scheduler, prepared)
        self.until_written(prepared, "up")
        self.cancel(scheduler, prepared)
        assert self.until_over(scheduler, prepared).tasks[0].state == CANCELLED
        assert prepared.read("tidied") == "tidy\n"

    def test_task_number_that_the_job_has_not_is_refused(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("true", tasks=2)
        self.submit(scheduler, prepared)
        with pytest.raises(InvalidInput, match="has no task 2") as caught:
            self.cancel(scheduler, prepared, [2])
        assert "0 to 1" in caught.value.hint
        self.until_over(scheduler, prepared)

    # -- limits --------------------------------------------------------------------------------------------------------

    def test_time_limit_is_told(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("sleep 6000", time_limit_s=1)
        self.submit(scheduler, prepared)
        view = self.until_over(scheduler, prepared).tasks[0]
        assert view.reason == "reached its time limit of 1 s"

    def test_used_memory_is_told(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        prepared = job_factory(self.python("held = bytearray(200 << 20); time.sleep(60)"), memory_mb=128)
        self.submit(scheduler, prepared)
        view = self.until_over(scheduler, prepared).tasks[0]
        words = view.reason.split()
        assert (view.state, words[0], words[2:]) == (OUT_OF_MEMORY, "used", ["MiB", "of", "128", "MiB"])
        assert 128 < int(words[1]) < 260

    def test_memory_of_the_whole_tree_counts(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        hungry = self.python("held = bytearray(60 << 20); time.sleep(60)").replace("exec ", "")
        prepared = job_factory(f"setsid {hungry} & {hungry} & {hungry} & wait", memory_mb=128)
        self.submit(scheduler, prepared)
        assert self.until_over(scheduler, prepared).tasks[0].state == OUT_OF_MEMORY

    def test_memory_that_forked_workers_share_counts_once(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        prepared = job_factory(
            self.python(
                "held = bytearray(b'x') * (100 << 20); [os.fork() for _ in range(2)]; open('up', 'a').write('up\\n'); time.sleep(2)"
            ),
            memory_mb=250,
        )
        self.submit(scheduler, prepared)
        self.until_written(prepared, "up", 4)
        assert self.until_over(scheduler, prepared).tasks[0].state == SUCCEEDED

    def python(self, code: str) -> str:
        return f"exec {shlex.quote(sys.executable)} -c {shlex.quote('import os, time; ' + code)}"

    # -- places ----------------------------------------------------------------------------------------------------------

    def test_state_folder_that_cannot_be_made_is_told(
        self, surroundings: Path, job_factory: JobFactory, scheduler: LocalScheduler
    ) -> None:
        (surroundings / "file").write_text("")
        prepared = job_factory("true")
        with pytest.raises(Unavailable) as caught:
            LocalScheduler(surroundings / "file" / "local").submit(prepared.job, prepared.directory)
        assert caught.value.hint

    def test_job_of_another_host_is_known_and_can_be_cancelled(self, scheduler: LocalScheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("echo $LOSSI_TASK >> began; sleep 60", tasks=2, max_parallel=1)
        self.submit(scheduler, prepared)
        self.until_written(prepared, "began")
        other = LocalScheduler(scheduler.places.root.parent)
        other.host = "elsewhere"
        other.places = type(scheduler.places)(scheduler.places.root.parent / "elsewhere")
        assert other.find(prepared.job.id) == scheduler.find(prepared.job.id)
        assert self.look(other, prepared).state == "running"
        waits = job_factory("true", cpus=SLOTS)
        self.submit(scheduler, waits)
        assert self.look(other, waits).state == QUEUED
        self.cancel(other, prepared)
        assert self.until_over(other, prepared).state == CANCELLED
        self.until_over(scheduler, waits)

    def until_gone(self, pids: list[str]) -> None:
        eventually(lambda: not any(map(lives, pids)), f"none of {pids} lives")


class TestWhereJobsMayRun:
    """Login nodes and web servers are not for jobs."""

    def refused(self, scheduler: LocalScheduler, job_factory: JobFactory) -> Forbidden:
        prepared = job_factory("true")
        with pytest.raises(Forbidden) as caught:
            scheduler.preview(prepared.job, prepared.directory)
        with pytest.raises(Forbidden):
            scheduler.submit(prepared.job, prepared.directory)
        assert scheduler.find(prepared.job.id) is None
        assert scheduler.poll([prepared.handle])[prepared.job.id].known is False
        return caught.value

    def test_login_node_is_refused_unless_allowed(
        self, scheduler: LocalScheduler, job_factory: JobFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sbatch = tmp_path / "slurm" / "sbatch"
        sbatch.parent.mkdir()
        sbatch.write_text("#!/bin/sh\n")
        sbatch.chmod(0o755)
        monkeypatch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
        monkeypatch.delenv("LOSSI_ALLOW_LOCAL_SCHEDULER")
        error = self.refused(scheduler, job_factory)
        assert str(sbatch) in error.why and "allow_local_scheduler: true" in error.hint
        monkeypatch.setenv("LOSSI_ALLOW_LOCAL_SCHEDULER", "true")
        prepared = job_factory("true")
        assert scheduler.preview(prepared.job, prepared.directory) == ["/bin/sh", str(prepared.directory / "script.sh")]

    @pytest.mark.parametrize("name", ["PASSENGER_BASE_URI", "ONDEMAND_VERSION"])
    def test_web_server_of_open_ondemand_is_refused(
        self, scheduler: LocalScheduler, job_factory: JobFactory, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv(name, "/pun/sys/lossi")
        monkeypatch.delenv("LOSSI_ALLOW_LOCAL_SCHEDULER")
        assert "Open OnDemand" in self.refused(scheduler, job_factory).why

    def test_site_may_forbid_it_anywhere(
        self, scheduler: LocalScheduler, job_factory: JobFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = tmp_path / "site.yml"
        site.write_text("allow_local_scheduler: false\n")
        monkeypatch.setenv("LOSSI_SITE", str(site))
        assert self.refused(scheduler, job_factory).hint
