"""Splits a lock file by the patch releases of this Python's version that it distinguishes (`python_full_version < '3.11.5'`).

The wheels of a release must suit every patch release, while pip evaluates only the one that runs it. ``locks.py LOCK FOLDER``
writes one list without conditions per difference; the release has the wheels of all lists.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from pip._vendor.packaging.markers import Marker

ENTRY = re.compile(r"(?P<name>[A-Za-z0-9][^;\\\n]*?)\s*(?:;\s*(?P<marker>[^\\\n]*?))?\s*(?P<rest>\\?\n(?:[ \t#].*\n)*)")


def split(lock: str, version: str) -> list[str]:
    """Return the different lists for the patch releases of ``version`` (such as ``3.11``) on this platform."""
    releases = re.findall(rf"python_full_version\s*[<>=!~]+\s*'({re.escape(version)}\.\d+)'", lock)
    lists: list[str] = []
    for release in dict.fromkeys((f"{version}.0", *sorted(releases), f"{version}.99")):
        environment = {"python_full_version": release, "python_version": version}
        text = "".join(
            f"{entry['name']} {entry['rest']}"
            for entry in ENTRY.finditer(lock)
            if not entry["marker"] or Marker(entry["marker"]).evaluate(environment)
        )
        if text not in lists:
            lists.append(text)
    return lists


def main(lock: Path, folder: Path) -> None:
    """Write the lists into a folder."""
    for number, text in enumerate(split(lock.read_text("utf-8"), "{}.{}".format(*sys.version_info[:2]))):
        (folder / f"{number}.lock").write_text(text, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
