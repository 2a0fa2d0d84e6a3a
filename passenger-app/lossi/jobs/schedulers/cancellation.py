"""``cancel.json`` of a job directory: what its owner asked to stop."""

from __future__ import annotations

from collections.abc import Sequence

from lossi.contract import records
from lossi.contract.records import CancelRequest
from lossi.files import atomic
from lossi.jobs.schedulers.base import Handle


def note(handle: Handle, tasks: Sequence[int] | None, *, when: str, user: str) -> None:
    """Add a request to those before. The caller makes sure that nobody else does so at the same time, or that it does not matter.

    Raises
    ------
    Unavailable, Forbidden
        If the request cannot be written.
    """
    path = handle.directory / records.CANCEL
    before = records.load_optional(CancelRequest, path)
    request = CancelRequest(when, user, None if tasks is None else sorted(set(tasks)))
    atomic.write(path, records.dump(merged(before, request)))


def merged(before: CancelRequest | None, request: CancelRequest) -> CancelRequest:
    """Return a request that also cancels what an earlier one asked for."""
    if before is None:
        return request
    if before.tasks is None or request.tasks is None:
        return CancelRequest(request.requested, request.user, None)
    return CancelRequest(request.requested, request.user, sorted({*before.tasks, *request.tasks}))
