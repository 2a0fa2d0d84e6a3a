"""What can be installed: the portal's app, the other apps, the dashboard's plugin and the templates, as the package has them.

Open OnDemand knows each by its place; this is the table of places. Reads the package's own folder only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lossi.errors import Unavailable
from lossi.installing.places import Places

PLUGINS = "dashboard-plugin"
OPTIONAL = ("lossi-mlflow-embedded",)
"""Left out by default: it takes memory on the portal's host for each user who opens it."""
IGNORED = ("__pycache__", ".git", ".lossi", "node_modules")


@dataclass(frozen=True)
class Component:
    """A folder or file that Open OnDemand looks for.

    Attributes
    ----------
    name
        For people and ``--without``: ``lossi``, ``lossi-jupyter``, ``plugin lossi``, ``job-template torchrun``.
    source
        Its folder or file in the bundle.
    inside
        Path in a version's folder.
    link
        Where Open OnDemand looks for it.
    """

    name: str
    source: Path
    inside: str
    link: Path


def shipped() -> Path:
    """Return the package's folder with the bundle."""
    return Path(__file__).resolve().parent.parent / "bundle"


def components(source: Path, places: Places) -> tuple[Component, ...]:
    """Return the components in ``source``.

    Raises
    ------
    Unavailable
        If the portal's app is missing: the package is not complete.
    """
    if not (source / "portal" / "manifest.yml").is_file():
        raise Unavailable(
            f"there is no bundle in {source}",
            hint="install Lossi from a release or a wheel",
        )
    return tuple(_components(source, places))


def _components(source: Path, places: Places) -> Iterator[Component]:
    yield Component("lossi", source / "portal", "apps/lossi", places.apps / "lossi")
    for folder in _folders(source / "ood-apps"):
        if folder.name == PLUGINS:
            for plugin in _folders(folder):
                yield from _plugin(plugin, places)
        elif (folder / "manifest.yml").is_file():
            name = f"lossi-{folder.name}"
            yield Component(name, folder, f"apps/{name}", places.apps / name)
    for folder in _templates(source / "batch-templates" / "job-composer", "manifest.yml"):
        name = f"lossi-{folder.name}"
        link = places.config / "apps" / "myjobs" / "templates" / name
        yield Component(f"job-template {folder.name}", folder, f"job-templates/{name}", link)
    for folder in _templates(source / "batch-templates" / "project-manager", ".ondemand/manifest.yml"):
        name = f"lossi-{folder.name}"
        link = places.config / "apps" / "dashboard" / "projects" / name
        yield Component(f"project-template {folder.name}", folder, f"project-templates/{name}", link)


def _plugin(folder: Path, places: Places) -> Iterator[Component]:
    inside = f"plugins/{folder.name}"
    yield Component(f"plugin {folder.name}", folder, inside, places.config / "plugins" / folder.name)
    for partial in sorted((folder / "views" / "widgets").glob("_*.html.erb")):
        # Open OnDemand 3.1 has no plugins and looks for a widget's partial here. Later versions find the plugin's first.
        link = places.config / "apps" / "dashboard" / "views" / "widgets" / partial.name
        name = partial.name.removesuffix(".html.erb").removeprefix("_")
        yield Component(f"widget {name}", partial, f"{inside}/views/widgets/{partial.name}", link)


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".") and path.name not in IGNORED
    )


def _templates(folder: Path, manifest: str) -> list[Path]:
    return [path for path in _folders(folder) if (path / manifest).is_file()]
