"""The folders of an installation. Knows paths only; reads nothing but links."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

APPS = "/var/www/ood/apps/sys"
CONFIG = "/etc/ood/config"
HOME = "/opt/lossi"


@dataclass(frozen=True)
class Places:
    """The three folders of an installation.

    Attributes
    ----------
    apps
        Open OnDemand's system apps.
    config
        Open OnDemand's configuration.
    home
        Lossi's own folder: versions, environments, and the links ``current`` and ``previous``.
    root
        The folder that stands for ``/``.
    """

    apps: Path
    config: Path
    home: Path
    root: Path = Path("/")

    @classmethod
    def below(cls, prefix: Path, *, apps: Path | None = None, config: Path | None = None, home: Path | None = None) -> Places:
        """Return the given places, or the usual ones, below ``prefix`` as below ``/``.

        Without ``home`` it is the one to which the installed apps lead, else the usual one.
        """
        root = Path(os.path.abspath(prefix))  # noqa: PTH100 -- does not follow links
        apps, config, usual_home = (root / str(path).lstrip("/") for path in (apps or APPS, config or CONFIG, home or HOME))
        installed_home = None if home else _home_of(apps)
        return cls(apps=apps, config=config, home=installed_home or usual_home, root=root)

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
        """Folder for installed files that somebody edited."""
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
        """Return ``path`` as it is named on a host where the root folder is ``/``."""
        return Path("/") / path.relative_to(self.root) if path.is_relative_to(self.root) else path

    def link_text(self, link: Path, inside: str) -> str:
        """Return the target of ``link`` to ``inside`` of the version in use; relative, so that a prefix may be moved."""
        return os.path.relpath(f"{os.path.realpath(self.home)}/current/{inside}", os.path.realpath(link.parent))

    def is_ours(self, link: Path) -> bool:
        """Return whether ``link`` is a link into the version in use, dangling or not."""
        try:
            text = os.readlink(link)  # noqa: PTH115 -- the text, not a path
        except OSError:
            return False
        target = os.path.normpath(Path(os.path.realpath(link.parent), text))
        return target.startswith(f"{os.path.realpath(self.home)}/current/")


def _home_of(apps: Path) -> Path | None:
    """Return the home to which a link among Open OnDemand's apps leads, dangling or not."""
    for link in sorted(apps.glob("lossi*")):
        if link.is_symlink():
            target = Path(os.path.normpath(Path(os.path.realpath(apps), os.readlink(link))))  # noqa: PTH115
            if target.parts[-3:] == ("current", "apps", link.name) and target.parents[2].joinpath("current").is_symlink():
                return target.parents[2]
    return None
