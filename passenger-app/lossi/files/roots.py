"""The allowed folders, and user input resolved to paths below them.

Reads only names and links. A path that was checked here can be replaced before it is opened: files in folders that others write
to are opened with `beneath`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lossi import settings
from lossi.errors import Forbidden, NotFound


class Roots:
    """The folders that paths must be in.

    Parameters
    ----------
    paths
        The allowed folders; links in them are resolved.
    within
        If given, a path must also be below one of these: the portal's own limit.
    """

    def __init__(self, paths: Sequence[Path], within: Sequence[Path] | None = None) -> None:
        self.paths = tuple(Path(os.path.realpath(path)) for path in paths)
        self.within = None if within is None else tuple(Path(os.path.realpath(path)) for path in within)

    def allows(self, path: Path) -> bool:
        """Return whether a path is below a root after resolving links; it need not exist."""
        if "\0" in os.fspath(path):
            return False
        resolved = Path(os.path.realpath(path))
        inside = any(resolved.is_relative_to(root) for root in self.paths)
        return inside and (self.within is None or any(resolved.is_relative_to(root) for root in self.within))

    def resolve(self, user_text: str, *, base: Path | None = None) -> Path:
        """Return the real path for a user's input.

        Parameters
        ----------
        user_text
            An absolute path, one that starts with ``~``, or one relative to ``base``.
        base
            Where a relative path starts; the first root if None.

        Raises
        ------
        Forbidden
            When it is outside; the message does not tell whether it exists.
        NotFound
            When it is inside and does not exist.
        """
        if "\0" in user_text or not user_text:
            raise NotFound(f"{user_text!r} is not a path", hint="name a file or folder")
        text = os.path.expanduser(user_text)  # noqa: PTH111  (keeps an unknown ~user instead of raising)
        start = base if base is not None else next(iter(self.paths), Path("/"))
        resolved = Path(os.path.realpath(start / text))
        if not self.allows(resolved):
            allowed = ", ".join(str(path) for path in self.paths) or "none"
            raise Forbidden(f"{user_text} is outside the allowed folders", hint=f"allowed folders: {allowed}")
        if not os.path.lexists(resolved):
            raise NotFound(f"{user_text} does not exist, or you may not see it", hint="check the spelling and your permissions")
        return resolved


def default(project: Path | None = None) -> Roots:
    """Return the roots of this user: the site's setting ``roots``, else home, ``$TMPDIR`` and the project.

    Open OnDemand's ``OOD_ALLOWLIST_PATH`` (colon-separated folders; formerly ``WHITELIST_PATH``) is an outer limit if the site set
    roots, and replaces them otherwise.
    """
    allowlist = _allowlist()
    configured = settings.load().roots
    if configured:
        return Roots(configured, within=allowlist)
    if allowlist is not None:
        return Roots(allowlist)
    own = [Path(os.path.expanduser("~")), Path(tempfile.gettempdir())]  # noqa: PTH111
    return Roots([*own, *([project] if project is not None else [])])


def portal_allows(path: Path) -> bool:
    """Return whether the portal's ``OOD_ALLOWLIST_PATH`` allows a path; without it, all paths are allowed."""
    allowlist = _allowlist()
    return allowlist is None or Roots(allowlist).allows(path)


def _allowlist() -> list[Path] | None:
    text = os.environ.get("OOD_ALLOWLIST_PATH") or os.environ.get("WHITELIST_PATH")
    return [Path(part) for part in text.split(":") if part.startswith("/")] if text else None
