"""Which folders users may name: the allowed roots, and texts of users turned into paths below them.

Reads only the names and links on the way. A path that was checked here and is opened later may have been swapped meanwhile:
what lies in folders that others write to is opened through `beneath`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lossi import settings
from lossi.errors import Forbidden, NotFound


class Roots:
    """Folders below which paths may lie.

    Parameters
    ----------
    paths
        The allowed folders; links in them are resolved.
    within
        When given, a path must also lie below one of these: an outer limit that the site's portal sets.
    """

    def __init__(self, paths: Sequence[Path], within: Sequence[Path] | None = None) -> None:
        self.paths = tuple(Path(os.path.realpath(path)) for path in paths)
        self.within = None if within is None else tuple(Path(os.path.realpath(path)) for path in within)

    def allows(self, path: Path) -> bool:
        """Return whether a path lies below a root once its links are resolved; it need not exist."""
        if "\0" in os.fspath(path):
            return False
        resolved = Path(os.path.realpath(path))
        inside = any(resolved.is_relative_to(root) for root in self.paths)
        return inside and (self.within is None or any(resolved.is_relative_to(root) for root in self.within))

    def resolve(self, user_text: str, *, base: Path | None = None) -> Path:
        """Return the real path that a text of a user means.

        Parameters
        ----------
        user_text
            An absolute path, one that starts with ``~``, or one relative to ``base``.
        base
            What a relative path starts from; the first root if None.

        Raises
        ------
        Forbidden
            When it lies outside; whether anything exists there is not told.
        NotFound
            When it lies inside and does not exist.
        """
        if "\0" in user_text or not user_text:
            raise NotFound(f"{user_text!r} is not a path", hint="name a file or folder")
        text = os.path.expanduser(user_text)  # noqa: PTH111  (an unknown ~user stays as it is instead of raising)
        start = base if base is not None else next(iter(self.paths), Path("/"))
        resolved = Path(os.path.realpath(start / text))
        if not self.allows(resolved):
            allowed = ", ".join(str(path) for path in self.paths) or "none"
            raise Forbidden(f"{user_text} is outside the allowed folders", hint=f"allowed are: {allowed}")
        if not os.path.lexists(resolved):
            raise NotFound(f"{user_text} does not exist, or you may not see it", hint="check the spelling and your permissions")
        return resolved


def default(project: Path | None = None) -> Roots:
    """Return the roots of this user: the site's setting ``roots``, else home, ``$TMPDIR`` and the project.

    Open OnDemand's ``OOD_ALLOWLIST_PATH`` (folders with colons between; formerly ``WHITELIST_PATH``) is an outer limit where
    the site set roots, and otherwise takes their place.
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
    """Return whether the portal's own limit, ``OOD_ALLOWLIST_PATH``, lets a path be shown; it does where there is none."""
    allowlist = _allowlist()
    return allowlist is None or Roots(allowlist).allows(path)


def _allowlist() -> list[Path] | None:
    text = os.environ.get("OOD_ALLOWLIST_PATH") or os.environ.get("WHITELIST_PATH")
    return [Path(part) for part in text.split(":") if part.startswith("/")] if text else None
