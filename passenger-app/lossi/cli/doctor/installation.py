"""The doctor's checks of what `lossi install` put on a portal's host, and of the site file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lossi.cli.doctor.finding import Finding, failed
from lossi.errors import Forbidden
from lossi.installing import Installed, Places

ROOT = Path("/")


def findings(prefix: Path = ROOT) -> Iterator[Finding]:
    """Check the installation on the host whose root folder is ``prefix``; as root, write the sessions' forms again."""
    from lossi import __version__, installing

    places = Places.below(prefix)
    installed = installing.current(places)
    what = "installation"
    if installed is None:
        yield Finding(what, "ok", f"the bundle is not installed in {places.home}")
        return
    if installed.version != __version__:
        remedy = "run `lossi install` of the version that you want"
        yield Finding(what, "warning", f"version {installed.version}, but this command is {__version__}", remedy)
    else:
        yield Finding(what, "ok", f"version {installed.version} in {installed.folder}")
    missing = sorted(link for link in installed.links if not Path(link).exists())
    if missing:
        yield Finding(f"{what}: links", "error", f"missing: {', '.join(missing)}", "run `lossi install` again")
    foreign = installing.foreign(places, installed.links)
    if foreign:
        paths = ", ".join(map(str, foreign))
        yield Finding(f"{what}: links", "error", f"not ours: {paths}", "move that away and run `lossi install` again")
    edits = installing.edits(installed)
    if edits:
        shown = ", ".join(f"{edit.path} ({edit.kind})" for edit in edits[:10]) + (" …" if len(edits) > 10 else "")
        remedy = "`lossi install` shows the difference, and restores them"
        yield Finding(f"{what}: files", "warning", f"changed since they were installed: {shown}", remedy)
    else:
        yield Finding(f"{what}: files", "ok", f"{len(installed.files)}, unchanged")
    yield _interpreter(installed)
    yield from _permissions(places, installed)
    yield from _forms(installed)
    if places.apps.joinpath("myjobs", "templates").is_dir() and any("/myjobs/templates/" in link for link in installed.links):
        remedy = f"link {places.config}/apps/myjobs/templates/lossi-* there, or remove that folder"
        yield Finding(f"{what}: templates", "warning", f"the Job Composer reads only {places.apps}/myjobs/templates", remedy)


def _interpreter(installed: Installed) -> Finding:
    """Return whether every user may run the apps' interpreter."""
    closed = unreachable(Path(installed.python))
    if closed is None:
        return Finding("installation: environment", "ok", installed.python)
    remedy = "install with a Python that everybody may run, such as /usr/bin/python3"
    return Finding("installation: environment", "error", f"{installed.python}: not everybody may access {closed}", remedy)


def unreachable(path: Path) -> Path | None:
    """Return the first folder or file on the way to an executable, and to a link's target, that not everybody may access."""
    for way in dict.fromkeys((path, Path(os.path.realpath(path)))):
        for part in (*reversed(way.parents), way):
            try:
                mode = part.stat().st_mode
            except OSError:
                return part
            if not mode & stat.S_IXOTH:
                return part
    return None


def _forms(installed: Installed) -> Iterator[Finding]:
    """Write the sessions' forms again, because they depend on catalogue and site file; without permission, check them."""
    from lossi.ood import apps

    for app in apps.APPS:
        folder = installed.folder / "apps" / f"lossi-{app}"
        if not folder.is_dir():
            continue
        what = f"installation: form of lossi-{app}"
        if os.access(folder, os.W_OK):
            apps.write(app, folder)
            yield Finding(what, "ok", "written again from catalogue and site file")
        elif not (folder / apps.FILE).is_file():
            yield Finding(what, "error", "missing", "run `lossi doctor` as root, which writes it")
        else:
            detail = "present; after a change of catalogue or site file, run `lossi doctor` as root, which writes it again"
            yield Finding(what, "ok", detail)


def _permissions(places: Places, installed: Installed) -> Iterator[Finding]:
    from lossi.files import permissions

    what = "installation: permissions"
    refusals = {}
    for folder in (installed.folder, *(folder for folder in (places.apps, places.config) if folder.is_dir())):
        try:
            permissions.refuse_open_ancestors(folder)
        except Forbidden as error:
            refusals[error.what] = error
    for refusal in refusals.values():
        yield failed(what, refusal)
    writable = [
        str(path)
        for path in (installed.folder / name for name in installed.files)
        if not path.is_symlink() and path.exists() and path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ]
    if writable:
        detail = f"others may write to {', '.join(writable[:5])}"
        yield Finding(what, "error", detail, f"chmod -R go-w {installed.folder}")
    if not refusals and not writable:
        yield Finding(what, "ok", "only the owner may write to it")


def site_file() -> Iterator[Finding]:
    """Check who may read and write the site file."""
    from lossi import clusters, settings

    path = settings.site_file()
    if not path.exists():
        yield Finding("site file", "ok", f"no {path}: everything has its default")
        return
    try:
        clusters.refuse_open_to_all(path)
    except Forbidden as error:
        yield Finding("site file", "error", f"{path} {error.what}", error.hint)
        return
    status = path.stat()
    if status.st_mode & stat.S_IWGRP and status.st_gid != 0:
        remedy = f"chmod g-w {path}: it names commands for all users"
        yield Finding("site file", "warning", f"{path} is writable by its group", remedy)
    elif not status.st_mode & stat.S_IROTH:
        yield Finding("site file", "error", f"{path} is not readable by everybody", f"chmod o+r {path}")
    else:
        yield Finding("site file", "ok", str(path))
