"""The name of a project in Open OnDemand's Project Manager, whose folders are named by an id such as ``kq3in8yn``.

They are ``…/ondemand/data/sys/dashboard/projects/ID``, with the name in ``.ondemand/manifest.yml``
(github.com/OSC/ondemand, apps/dashboard/app/models/project.rb).
"""

from __future__ import annotations

import functools
from pathlib import Path

from lossi.files import document

MANIFEST = ".ondemand/manifest.yml"
LONGEST = 200


def name_of(root: Path) -> str | None:
    """Return a project's name there; None for other folders, or if it cannot be read."""
    if root.parent.name != "projects" or root.parent.parent.name != "dashboard":
        return None
    try:
        return _read(root / MANIFEST, (root / MANIFEST).stat().st_mtime_ns)
    except OSError:
        return None


@functools.lru_cache(maxsize=256)
def _read(path: Path, written: int) -> str | None:
    try:
        manifest = document.read(path)
    except document.Unreadable:
        return None
    name = manifest.data.get("name") if manifest and isinstance(manifest.data, dict) else None
    if not isinstance(name, str) or not name.isprintable() or "/" in name or not 0 < len(name.strip()) <= LONGEST:
        return None
    return name.strip()
