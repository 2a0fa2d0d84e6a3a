"""The local scheduler passes the contract, and does what only a scheduler of one's own machine must."""

from __future__ import annotations

from scheduler_contract import SchedulerContract


class TestLocalScheduler(SchedulerContract):
    """The contract."""
