"""A long-time holder of the lease, such as a session of MLflow's own pages, can ingest with it; nobody else can."""

from __future__ import annotations

from ingest_support import World

from lossi import tracking
from lossi.tracking.ingest import lease


def test_the_holder_ingests_and_keeps_the_lease(world: World) -> None:
    world.job()
    task = world.task()
    run = task.log.run("a run")
    task.log.end(run)
    task.finish(run)
    held = lease.acquire_lease(world.project.home)
    assert held is not None
    with held:
        assert tracking.ingest_runs(world.project).busy
        assert tracking.ingest_runs(world.project, lease=held).runs == 1
        held.verify()
        assert tracking.ingest_runs(world.project, lease=held).runs == 0
    assert not tracking.ingest_runs(world.project).busy


def test_with_a_lost_lease_nothing_is_written(world: World) -> None:
    world.job()
    task = world.task()
    run = task.log.run("a run")
    task.log.end(run)
    task.finish(run)
    held = lease.acquire_lease(world.project.home)
    assert held is not None
    (world.project.home / lease.LEASE).unlink()
    assert tracking.ingest_runs(world.project, lease=held).busy
    held.release()
    assert tracking.ingest_runs(world.project).runs == 1
