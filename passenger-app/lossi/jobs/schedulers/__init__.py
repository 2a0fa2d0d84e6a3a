"""The schedulers by name. Each adapter is imported when it is first asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from lossi import settings
from lossi.errors import InvalidInput, did_you_mean
from lossi.jobs.schedulers.base import Capabilities, Handle, JobView, Scheduler, TaskView

DEFAULT = "local"


def _local() -> Scheduler:
    return _local_of(settings.state_dir())


@functools.lru_cache(maxsize=4)
def _local_of(state: Path) -> Scheduler:
    """Return one adapter per state folder: it remembers how far it has read each job's journal."""
    from lossi.jobs.schedulers.local import LocalScheduler

    return LocalScheduler(state / "local")


_FACTORIES: dict[str, Callable[[], Scheduler]] = {"local": _local}


def get(name: str | None = None) -> Scheduler:
    """Return the scheduler of that name, or the default one.

    Raises
    ------
    InvalidInput
        When there is none of that name.
    """
    wanted = name or DEFAULT
    try:
        factory = _FACTORIES[wanted]
    except KeyError:
        raise InvalidInput(
            f"there is no scheduler {wanted!r}", hint=did_you_mean(wanted, _FACTORIES) or f"known: {', '.join(names())}"
        ) from None
    return factory()


def names() -> tuple[str, ...]:
    """Return the names of all schedulers, the default one first."""
    return tuple(sorted(_FACTORIES, key=lambda name: (name != DEFAULT, name)))


def register(name: str, factory: Callable[[], Scheduler]) -> None:
    """Add a scheduler (or replace one of the same name): how further adapters and the contract tests come in."""
    _FACTORIES[name] = factory


__all__ = ["DEFAULT", "Capabilities", "Handle", "JobView", "Scheduler", "TaskView", "get", "names", "register"]
