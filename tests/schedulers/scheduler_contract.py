"""What every scheduler behind the port must do: written against `lossi.jobs.schedulers.base` alone.

A test module of an adapter subclasses `SchedulerContract` and gives the fixtures ``scheduler`` (the adapter, with at least
two tasks at once and a short grace) and ``job_factory`` (a `JobFactory` in a folder that the nodes can see). All processes are
real; nothing sleeps for a fixed time except the payloads.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from datetime import datetime

import pytest
from scheduler_jobs import JobFactory, Prepared, eventually, lives

from lossi.contract.records import Resources, SubmissionRecord
from lossi.contract.states import CANCELLED, FAILED, OUT_OF_MEMORY, QUEUED, RUNNING, SUCCEEDED, TIMED_OUT, has_ended
from lossi.errors import InvalidInput, NotSupported
from lossi.jobs.schedulers.base import Handle, JobView, Scheduler, TaskView


class SchedulerContract:
    """The tests. An adapter's own test class may change the figures."""

    shortest_time_limit_s = 1
    interpreter = sys.executable
    """An interpreter of the machines that run the tasks."""

    def time_is_up(self, prepared: Prepared) -> None:
        """Bring the end of a running task's time nearer, where that can be done."""

    def submit(self, scheduler: Scheduler, prepared: Prepared) -> SubmissionRecord:
        record = scheduler.submit(prepared.job, prepared.directory)
        self.ids = {**getattr(self, "ids", {}), prepared.job.id: record.scheduler_id}
        self.submitted = {prepared.job.id: datetime.fromisoformat(record.submitted).timestamp(), **getattr(self, "submitted", {})}
        return record

    def look(self, scheduler: Scheduler, prepared: Prepared) -> JobView:
        submitted = self.submitted[prepared.job.id]
        handle = Handle(prepared.job.id, self.ids[prepared.job.id], prepared.directory, prepared.job.tasks, submitted)
        return scheduler.poll([handle])[prepared.job.id]

    def task(self, scheduler: Scheduler, prepared: Prepared, task: int = 0) -> TaskView:
        view = self.look(scheduler, prepared)
        return view.tasks.get(task) or TaskView(view.state if view.state == QUEUED else "")

    def cancel(self, scheduler: Scheduler, prepared: Prepared, tasks: list[int] | None = None) -> None:
        scheduler.cancel(Handle(prepared.job.id, self.ids[prepared.job.id], prepared.directory, prepared.job.tasks), tasks)

    def until_over(self, scheduler: Scheduler, prepared: Prepared) -> JobView:
        def over() -> JobView | None:
            view = self.look(scheduler, prepared)
            assert view.known
            ended = [task for task in view.tasks.values() if has_ended(task.state)]
            return view if len(ended) == prepared.job.tasks else None

        return eventually(over, "the job is over")

    def until_written(self, prepared: Prepared, name: str, lines: int = 1) -> list[str]:
        eventually(lambda: prepared.read(name).count("\n") >= lines, f"{name} has {lines} lines")
        return prepared.read(name).split()

    # -- ends --------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(("code", "state"), [(0, SUCCEEDED), (3, FAILED), (255, FAILED)])
    def test_exit_code_of_the_script_is_the_tasks(
        self, scheduler: Scheduler, job_factory: JobFactory, code: int, state: str
    ) -> None:
        prepared = job_factory(f"exit {code}")
        self.submit(scheduler, prepared)
        view = self.until_over(scheduler, prepared).tasks[0]
        assert (view.state, view.exit_code, view.signal) == (state, code, None)
        assert bool(view.reason) == (code != 0)

    def test_death_by_signal_is_told(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("kill -SEGV $$")
        self.submit(scheduler, prepared)
        view = self.until_over(scheduler, prepared).tasks[0]
        assert (view.state, view.signal) == (FAILED, 11)

    def test_ended_task_has_times_and_host(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("true")
        self.submit(scheduler, prepared)
        view = self.until_over(scheduler, prepared).tasks[0]
        assert view.started is not None and view.ended is not None and view.host
        assert datetime.fromisoformat(view.started) <= datetime.fromisoformat(view.ended)
        assert datetime.fromisoformat(view.ended).tzinfo is not None

    def test_job_is_as_good_as_its_worst_task(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("exit $((LOSSI_TASK == 1))", tasks=3)
        self.submit(scheduler, prepared)
        view = self.until_over(scheduler, prepared)
        assert [view.tasks[n].state for n in range(3)] == [SUCCEEDED, FAILED, SUCCEEDED]

    # -- starting ----------------------------------------------------------------------------------------------------

    def test_each_task_knows_its_job_and_number(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory('echo "$LOSSI_JOB_ID $LOSSI_TASK"', tasks=3)
        self.submit(scheduler, prepared)
        self.until_over(scheduler, prepared)
        assert [prepared.log(n).split() for n in range(3)] == [[prepared.job.id, str(n)] for n in range(3)]

    def test_tasks_start_in_the_order_of_their_numbers(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("echo $LOSSI_TASK >> order", tasks=6, max_parallel=1)
        self.submit(scheduler, prepared)
        self.until_over(scheduler, prepared)
        assert prepared.read("order").split() == list("012345")

    def test_no_more_tasks_at_once_than_allowed(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("mkdir alone || echo two at once >> wrong; sleep 0.05; rmdir alone", tasks=5, max_parallel=1)
        self.submit(scheduler, prepared)
        view = self.until_over(scheduler, prepared)
        assert {task.state for task in view.tasks.values()} == {SUCCEEDED}
        assert prepared.read("wrong") == ""

    def test_two_tasks_run_side_by_side(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("echo here > here$LOSSI_TASK; until [ -e here$((1 - LOSSI_TASK)) ]; do sleep 0.02; done", tasks=2)
        self.submit(scheduler, prepared)
        view = self.until_over(scheduler, prepared)
        assert {task.state for task in view.tasks.values()} == {SUCCEEDED}

    def test_running_task_is_shown_running(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("echo up > up; sleep 60")
        self.submit(scheduler, prepared)
        self.until_written(prepared, "up")
        eventually(lambda: self.task(scheduler, prepared).state == RUNNING)
        assert self.look(scheduler, prepared).state == RUNNING
        self.cancel(scheduler, prepared)
        self.until_over(scheduler, prepared)

    def test_script_reads_nothing_and_knows_its_folder(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("cat; pwd")
        self.submit(scheduler, prepared)
        self.until_over(scheduler, prepared)
        assert prepared.log().strip() == str(prepared.directory)

    # -- stopping ----------------------------------------------------------------------------------------------------

    def test_cancelled_job_ends_running_and_waiting_tasks(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("echo $LOSSI_TASK >> began; sleep 60", tasks=5, max_parallel=2)
        self.submit(scheduler, prepared)
        self.until_written(prepared, "began", 2)
        self.cancel(scheduler, prepared)
        view = self.until_over(scheduler, prepared)
        assert {task.state for task in view.tasks.values()} == {CANCELLED}
        assert sorted(prepared.read("began").split()) == ["0", "1"]
        assert all(view.tasks[n].started is None for n in (2, 3, 4))

    def test_one_cancelled_task_leaves_the_others_alone(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory('echo up >> up; [ "$LOSSI_TASK" = 0 ] && sleep 60; exit 0', tasks=2)
        self.submit(scheduler, prepared)
        self.until_written(prepared, "up", 2)
        self.cancel(scheduler, prepared, [0])
        view = self.until_over(scheduler, prepared)
        assert [view.tasks[n].state for n in (0, 1)] == [CANCELLED, SUCCEEDED]

    def test_waiting_task_that_is_cancelled_never_starts(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("echo $LOSSI_TASK >> began; until [ -e go ]; do sleep 0.02; done", tasks=4, max_parallel=1)
        self.submit(scheduler, prepared)
        self.until_written(prepared, "began")
        self.cancel(scheduler, prepared, [2])
        eventually(lambda: self.task(scheduler, prepared, 2).state == CANCELLED)
        (prepared.directory / "go").touch()
        view = self.until_over(scheduler, prepared)
        assert [view.tasks[n].state for n in range(4)] == [SUCCEEDED, SUCCEEDED, CANCELLED, SUCCEEDED]
        assert prepared.read("began").split() == ["0", "1", "3"]

    def test_two_requests_to_cancel_add_up(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("echo up >> up; until [ -e go ]; do sleep 0.02; done", tasks=5, max_parallel=1)
        self.submit(scheduler, prepared)
        self.until_written(prepared, "up")
        self.cancel(scheduler, prepared, [1])
        self.cancel(scheduler, prepared, [3, 4])
        (prepared.directory / "go").touch()
        view = self.until_over(scheduler, prepared)
        assert [view.tasks[n].state for n in range(5)] == [SUCCEEDED, CANCELLED, SUCCEEDED, CANCELLED, CANCELLED]

    def test_cancelling_what_has_ended_changes_nothing(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("exit 3")
        self.submit(scheduler, prepared)
        before = self.until_over(scheduler, prepared)
        self.cancel(scheduler, prepared)
        self.cancel(scheduler, prepared, [0])
        after = self.look(scheduler, prepared).tasks[0]
        # Facts may come from the queue at one time and from the accounts at another.
        facts = {"facts": before.tasks[0].facts, "accounted": before.tasks[0].accounted}
        assert dataclasses.replace(after, **facts) == before.tasks[0]

    def test_stopped_script_may_tidy_up(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("trap 'echo tidy >> tidied; exit 143' TERM; echo up > up; while :; do sleep 0.02; done")
        self.submit(scheduler, prepared)
        self.until_written(prepared, "up")
        self.cancel(scheduler, prepared)
        assert self.until_over(scheduler, prepared).tasks[0].state == CANCELLED
        assert prepared.read("tidied") == "tidy\n"

    def test_script_that_ignores_sigterm_is_killed_after_the_grace(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("trap '' TERM; echo up > up; while :; do sleep 0.02; done")
        self.submit(scheduler, prepared)
        self.until_written(prepared, "up")
        self.cancel(scheduler, prepared)
        assert self.until_over(scheduler, prepared).tasks[0].state == CANCELLED

    def test_whole_process_tree_ends_with_a_cancelled_task(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory(
            "setsid sh -c 'trap \"\" TERM HUP; echo $$ >> pids; while :; do sleep 0.02; done' &\n"
            "(setsid sh -c 'trap \"\" TERM HUP; echo $$ >> pids; while :; do sleep 0.02; done' &)\n"
            "wait"
        )
        self.submit(scheduler, prepared)
        pids = self.until_written(prepared, "pids", 2)
        self.cancel(scheduler, prepared)
        self.until_over(scheduler, prepared)
        eventually(lambda: not any(map(lives, pids)), f"none of {pids} lives")

    def test_nothing_outlives_a_task_that_ended_by_itself(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory(
            "(setsid sh -c 'echo $$ >> pids; exec sleep 600' &)\nuntil [ -e pids ] && [ -s pids ]; do sleep 0.01; done"
        )
        self.submit(scheduler, prepared)
        view = self.until_over(scheduler, prepared)
        assert view.tasks[0].state == SUCCEEDED
        eventually(lambda: not any(map(lives, prepared.read("pids").split())))

    # -- limits ------------------------------------------------------------------------------------------------------

    def test_time_limit_ends_a_task_and_is_named(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        if not scheduler.capabilities.time_limits:
            pytest.skip("no time limits")
        prepared = job_factory("echo before; exec sleep 600", time_limit_s=self.shortest_time_limit_s)
        self.submit(scheduler, prepared)
        eventually(prepared.log, "it has begun")
        self.time_is_up(prepared)
        view = self.until_over(scheduler, prepared).tasks[0]
        assert view.state == TIMED_OUT
        assert prepared.log().strip() == "before"

    def test_memory_limit_ends_a_task_and_is_named(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        if not scheduler.capabilities.memory_limits:
            pytest.skip("no memory limits")
        greedy = f"exec {shlex.quote(self.interpreter)} -c 'import time; held = bytearray(400 << 20); time.sleep(60)'"
        prepared = job_factory(greedy, memory_mb=128)
        self.submit(scheduler, prepared)
        assert self.until_over(scheduler, prepared).tasks[0].state == OUT_OF_MEMORY

    def test_impossible_requests_are_refused_and_name_the_limit(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        can = scheduler.capabilities
        impossible: list[tuple[dict[str, int], int]] = []
        if can.max_gpus is not None:
            impossible.append(({"gpus": can.max_gpus + 1}, can.max_gpus))
        if can.max_memory_mb is not None:
            impossible.append(({"memory_mb": can.max_memory_mb + 1}, can.max_memory_mb))
        if can.max_nodes is not None:
            impossible.append(({"nodes": can.max_nodes + 1}, can.max_nodes))
        for resources, limit in impossible:
            prepared = job_factory("true", **resources)
            for refused in (scheduler.preview, scheduler.submit):
                with pytest.raises(InvalidInput) as caught:
                    refused(prepared.job, prepared.directory)
                assert str(limit) in str(caught.value) and caught.value.hint
            assert scheduler.find(prepared.job.id) is None

    # -- submitting and asking ---------------------------------------------------------------------------------------

    def test_preview_and_directives_touch_nothing(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("true")
        nowhere = prepared.directory.parent / "nowhere"
        assert all(scheduler.preview(prepared.job, nowhere))
        assert all(line.startswith("#") for line in scheduler.directives(prepared.job, nowhere))
        assert not nowhere.exists()
        assert scheduler.find(prepared.job.id) is None

    def test_session_options_carry_the_resources_or_sessions_are_not_supported(self, scheduler: Scheduler) -> None:
        resources = Resources(cpus=1, memory_mb=100, time_limit_s=600)
        if not scheduler.capabilities.sessions:
            with pytest.raises(NotSupported):
                scheduler.session_options(resources)
            return
        options = scheduler.session_options(resources)
        assert options.time_s == 600 and options.native
        for word in options.native:
            assert word and not set(word) & set(" \t\n'\"`$;&|<>"), word

    def test_job_is_found_by_its_own_id_from_submission_on(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("true")
        assert scheduler.find(prepared.job.id) is None
        record = self.submit(scheduler, prepared)
        assert record.scheduler == scheduler.name
        for _ in range(2):
            submission = scheduler.find(prepared.job.id)
            assert submission is not None and submission.scheduler_id == record.scheduler_id
            self.until_over(scheduler, prepared)

    def test_second_submission_of_a_job_is_not_a_second_job(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("echo ran >> ran")
        first = self.submit(scheduler, prepared)
        assert self.submit(scheduler, prepared).scheduler_id == first.scheduler_id
        self.until_over(scheduler, prepared)
        assert self.submit(scheduler, prepared).scheduler_id == first.scheduler_id
        assert self.until_over(scheduler, prepared).tasks[0].state == SUCCEEDED
        assert prepared.read("ran") == "ran\n"

    def test_unknown_job_is_said_to_be_unknown(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("true")
        assert scheduler.poll([prepared.handle])[prepared.job.id].known is False

    def test_many_jobs_are_asked_for_at_once(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = [job_factory(f"exit {code}") for code in range(3)]
        for job in prepared:
            self.submit(scheduler, job)
        for job in prepared:
            self.until_over(scheduler, job)
        handles = [Handle(job.job.id, self.ids[job.job.id], job.directory, 1) for job in prepared]
        views = scheduler.poll(handles)
        assert [views[job.job.id].tasks[0].exit_code for job in prepared] == [0, 1, 2]

    def test_adapter_is_a_scheduler(self, scheduler: Scheduler) -> None:
        assert isinstance(scheduler, Scheduler)
        assert scheduler.poll([]) == {}

    def test_path_with_spaces_quotes_and_signs_is_taken_as_it_is(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        strange = JobFactory(job_factory.root / "a b?c%20d'e\"$(touch wrong)f;g\u00e4", scheduler)
        prepared = strange("echo ok")
        job_factory.prepared.append(prepared)
        self.submit(scheduler, prepared)
        assert self.until_over(scheduler, prepared).tasks[0].state == SUCCEEDED
        assert prepared.log() == "ok\n"
        assert not list(job_factory.root.rglob("wrong"))
