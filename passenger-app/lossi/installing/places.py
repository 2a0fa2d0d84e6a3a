"""Where the parts of an installation lie; knows paths only and looks at no file but to follow links of folders above."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

APPS = "/var/www/ood/apps/sys"
CONFIG = "/etc/ood/config"
HOME = "/opt/lossi"


@dataclass(frozen=True)
class Places:
    """The three folders that an installation has to do with.

    Attributes
    ----------
    apps
        Open OnDemand's system apps.
    config
        Open OnDemand's configuration.
    home
        Lossi's own: versions, environments, and the links ``current`` and ``previous``.
    root
        What stands for ``/``.
    """

    apps: Path
    config: Path
    home: Path
    root: Path = Path("/")

    @classmethod
    def below(cls, prefix: Path, *, apps: Path | None = None, config: Path | None = None, home: Path | None = None) -> Places:
        """Return the usual places, or those that are named, below ``prefix`` as below ``/``.

        A home that is not named is the one to which the apps there already lead, else the usual one.
        """
        root = Path(os.path.abspath(prefix))  # noqa: PTH100 -- links stay as they were named
        named = [root / str(path).lstrip("/") for path in (apps or APPS, config or CONFIG, home or HOME)]
        found = None if home else _home_of(named[0])
        return cls(apps=named[0], config=named[1], home=found or named[2], root=root)

    @property
    def versions(self) -> Path:
        """Folder of the versions' folders."""
        return self.home / "versions"

    @property
    def environments(self) -> Path:
        """Folder of the environments that ``install.sh`` makes."""
        return self.home / "environments"

    @property
    def edits(self) -> Path:
        """Folder in which files are kept that were edited where they lay."""
        return self.home / "edits"

    @property
    def current(self) -> Path:
        """Link to the version in use."""
        return self.home / "current"

    @property
    def previous(self) -> Path:
        """Link to the version before."""
        return self.home / "previous"

    def as_used(self, path: Path) -> Path:
        """Return ``path`` as it will be called where the root folder is ``/``."""
        return Path("/") / path.relative_to(self.root) if path.is_relative_to(self.root) else path

    def link_text(self, link: Path, inside: str) -> str:
        """Return what the link ``link`` to ``inside`` of the version in use holds: relative, so that all may lie below a prefix."""
        return os.path.relpath(f"{os.path.realpath(self.home)}/current/{inside}", os.path.realpath(link.parent))

    def is_ours(self, link: Path) -> bool:
        """Return whether ``link`` is a link that leads into the version in use, whether or not its end is there."""
        try:
            text = os.readlink(link)  # noqa: PTH115 -- the text, not a path
        except OSError:
            return False
        leads_to = os.path.normpath(Path(os.path.realpath(link.parent), text))
        return leads_to.startswith(f"{os.path.realpath(self.home)}/current/")


def _home_of(apps: Path) -> Path | None:
    """Return the home of the installation to which a link among Open OnDemand's apps leads, whether or not its end is there."""
    for link in sorted(apps.glob("lossi*")):
        if link.is_symlink():
            leads_to = Path(os.path.normpath(Path(os.path.realpath(apps), os.readlink(link))))  # noqa: PTH115
            if leads_to.parts[-3:] == ("current", "apps", link.name) and leads_to.parents[2].joinpath("current").is_symlink():
                return leads_to.parents[2]
    return None
