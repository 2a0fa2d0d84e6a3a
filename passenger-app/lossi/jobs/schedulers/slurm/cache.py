"""Answers of the scheduler on disk, shared by all tabs and commands of a user, so that they rarely ask.

One file per question below the user's cache folder: a line about the answer, then the answer, which is read only if it is
needed. One process renews an answer that is too old; the others take the old one meanwhile. A scheduler that does not answer
is not asked again at once: its last answer stays, with the reason why it is old.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter

import lossi
from lossi.errors import LossiError, Unavailable
from lossi.files import atomic

T = TypeVar("T")

FORMAT = f"2 {lossi.__version__}"
RETRY_S = 10.0
"""Time to wait after a question that was not answered."""


@dataclass(frozen=True)
class Answer(Generic[T]):
    """The last answer.

    Attributes
    ----------
    as_of
        When it was asked for, in seconds since the epoch.
    problem
        Not empty: why there is no newer one.
    """

    value: T
    as_of: float
    problem: str = ""


@dataclass(frozen=True)
class _Held:
    """A file's content; ``data`` is JSON, None: never answered."""

    data: bytes | None
    as_of: float
    asked: float
    problem: str
    hint: str

    def is_due(self, interval_s: float) -> bool:
        age = time.time() - self.asked
        # A clock that was set back must not keep an answer forever.
        return not 0 <= age < (min(interval_s, RETRY_S) if self.problem else interval_s)


class Cache:
    """The answers of one cluster.

    Parameters
    ----------
    folder
        Where; made if missing, for the user alone.
    wait_s
        How long to wait for a first answer that another process has asked for.
    """

    def __init__(self, folder: Path, *, wait_s: float = 3.0) -> None:
        self.folder = folder
        self._wait_s = wait_s

    def get(self, name: str, interval_s: float, adapter: TypeAdapter[T], ask: Callable[[], T]) -> Answer[T]:
        """Return an answer no older than ``interval_s``, or the last one and why there is no newer one.

        Raises
        ------
        LossiError
            If there is no answer at all.
        """
        held = self._read(name)
        if held is not None and not held.is_due(interval_s):
            return self._answer(held, adapter)
        with self._turn(name, wait=held is None or held.data is None) as mine:
            held = self._read(name)
            if held is not None and (not mine or not held.is_due(interval_s)):
                return self._answer(held, adapter)
            now = time.time()
            try:
                value = ask()
            except Unavailable as error:
                held = _Held(held.data if held else None, held.as_of if held else 0.0, now, error.what, error.hint)
                self._write(name, held)
                if held.data is None:
                    raise
                return self._answer(held, adapter)
            self._write(name, _Held(adapter.dump_json(value, exclude_defaults=True), now, now, "", ""))
            return Answer(value, now)

    def expire(self, name: str) -> None:
        """Make the next `get` ask again: something was submitted or cancelled."""
        held = self._read(name)
        if held is not None and held.asked:
            self._write(name, _Held(held.data, held.as_of, 0.0, held.problem, held.hint))

    def _answer(self, held: _Held, adapter: TypeAdapter[T]) -> Answer[T]:
        if held.data is None:
            raise Unavailable(held.problem, hint=held.hint)
        return Answer(adapter.validate_json(held.data), held.as_of, held.problem)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str) -> _Held | None:
        try:
            head, data, rest = self._path(name).read_bytes().split(b"\n", 2)
            about = json.loads(head)
            if rest or about["format"] != FORMAT:  # from another Lossi: its records may have other members
                return None
            return _Held(data or None, float(about["as_of"]), float(about["asked"]), str(about["problem"]), str(about["hint"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, name: str, held: _Held) -> None:
        about = {"format": FORMAT, "as_of": held.as_of, "asked": held.asked, "problem": held.problem, "hint": held.hint}
        # A cache that cannot be written costs questions, not answers.
        with contextlib.suppress(LossiError, OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            content = b"%s\n%s\n" % (json.dumps(about).encode(), held.data or b"")
            atomic.write(self._path(name), content, mode=0o600, durable=False)

    @contextlib.contextmanager
    def _turn(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Yield whether this process may ask; if files cannot be locked, always."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            yield True
            return
        try:
            yield self._locked(descriptor, wait=wait)
        finally:
            os.close(descriptor)

    def _locked(self, descriptor: int, *, wait: bool) -> bool:
        end = time.monotonic() + (self._wait_s if wait else 0.0)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end:
                    return False
                time.sleep(0.02)
            except OSError:
                return True
            else:
                return True
