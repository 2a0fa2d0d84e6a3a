"""The doctor's look at a portal's host: Open OnDemand and its settings, what is installed there, images, Apptainer, permissions."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lossi.cli.finding import Finding
from lossi.errors import Forbidden, LossiError
from lossi.installing import Installed, Places

OLDEST, NEWEST = (3, 1), (4, 2)
"""Versions of Open OnDemand that the bundle is made for."""
ROOT = Path("/")
TRUE = ("1", "true", "yes", "on")
WIDE = ("[^/]+", "[^/]*", ".+", ".*", r"[\w.-]+")
"""Forms of ``host_regex`` that let the portal's proxy lead anywhere; the first is Open OnDemand's default."""


def findings(prefix: Path = ROOT) -> Iterator[Finding]:
    """Look at the host whose root folder is ``prefix``; reads only."""
    places = Places.below(prefix)
    version = _text(prefix / "opt/ood/VERSION")
    if version is None and not places.config.is_dir():
        yield Finding("Open OnDemand", "ok", "not on this machine")
    else:
        yield _version((version or "").strip())
        yield from _settings(places)
        yield from _portal(places.config / "ood_portal.yml")
    yield from _installation(places)
    yield from _site_file()


def _version(text: str) -> Finding:
    numbers = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    known = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    if len(numbers) < 2:
        return Finding("Open OnDemand", "warning", "of unknown version", f"the bundle is made for {known}")
    if numbers < OLDEST:
        return Finding("Open OnDemand", "error", f"version {text}", f"upgrade it: the bundle is made for {known}")
    if numbers > NEWEST:
        return Finding("Open OnDemand", "warning", f"version {text}", f"the bundle was tried with {known}: try a session first")
    return Finding("Open OnDemand", "ok", f"version {text}")


def _settings(places: Places) -> Iterator[Finding]:
    """What the dashboard's own settings say, in the order in which it reads them."""
    folder = places.config / "ondemand.d"
    merged: dict[str, Any] = {}
    hidden = []
    for path in sorted([*folder.glob("*.yml"), *folder.glob("*.yaml"), *folder.glob("*.erb")]):
        if path.suffix == ".erb":
            hidden.append(path.name)
            continue
        try:
            data = _yaml(path)
        except LossiError as error:
            yield Finding("Open OnDemand: settings", "error", f"{path} {error.what}", error.hint)
            continue
        merged.update(data)
        if path.stat().st_uid != 0 and os.geteuid() == 0:
            yield Finding(
                "Open OnDemand: settings", "warning", f"{path} is not root's", f"chown root {path}: others are not read"
            )
    unsure = f" ({', '.join(hidden)} cannot be read here)" if hidden else ""
    dynamic = _flag(merged, "bc_dynamic_js", places)
    where = folder / "lossi.yml"
    if dynamic:
        yield Finding("Open OnDemand: bc_dynamic_js", "ok", "on")
    else:
        what = "off: forms show all choices at once, also those that do not go together"
        remedy = f"write `bc_dynamic_js: true` into {where}, then restart the web servers of users (menu Help)"
        yield Finding("Open OnDemand: bc_dynamic_js", "warning", what + unsure, remedy)
    if _flag(merged, "csp_enabled", places):
        what = "on: the dashboard refuses the scripts of forms (form.js), ours and those of other apps"
        yield Finding(
            "Open OnDemand: csp_enabled",
            "warning",
            what,
            f"write `csp_enabled: false` into {where}, or do without the forms' lists that follow what is chosen",
        )


def _flag(settings: dict[str, Any], name: str, places: Places) -> bool:
    """Whether the dashboard has a setting on: its environment file goes before its settings."""
    for line in (_text(places.config / "apps" / "dashboard" / "env") or "").splitlines():
        key, _, value = line.strip().removeprefix("export ").partition("=")
        if key.strip() == f"OOD_{name.upper()}":
            return value.strip().strip("'\"").lower() in TRUE
    return str(settings.get(name, "")).lower() in TRUE


def _portal(path: Path) -> Iterator[Finding]:
    """Whether sessions can be reached through the portal, and only those."""
    what = "Open OnDemand: proxy"
    if path.exists() and not os.access(path, os.R_OK):
        yield Finding(what, "warning", f"{path} may not be read by you", "run `lossi doctor` as root too")
        return
    try:
        data = _yaml(path)
    except LossiError as error:
        yield Finding(what, "error", f"{path} {error.what}", error.hint)
        return
    missing = [key for key, usual in (("node_uri", "/node"), ("rnode_uri", "/rnode")) if data.get(key) != usual]
    after = "then run update_ood_portal and restart Apache"
    if missing:
        wanted = " and ".join(f"`{key}: /{key.removesuffix('_uri')}`" for key in missing)
        yield Finding(
            what, "error", f"{', '.join(missing)} not set: sessions cannot be reached", f"write {wanted} into {path}, {after}"
        )
    else:
        yield Finding(what, "ok", "node_uri and rnode_uri are on")
    regex = str(data.get("host_regex") or "[^/]+")
    if _is_wide(regex):
        remedy = (
            rf"write the names of your compute nodes into {path}, such as `host_regex: '(cpu|gpu)\d+(\.example\.org)?'`, {after}"
        )
        yield Finding(
            f"{what}: host_regex", "warning", f"{regex!r} lets any user reach any host and port through the portal", remedy
        )
    else:
        yield Finding(f"{what}: host_regex", "ok", regex)


def _is_wide(regex: str) -> bool:
    """Whether the expression lets hosts through that no site names its nodes like."""
    if regex in WIDE:
        return True
    try:
        return all(re.fullmatch(regex, host) for host in ("localhost", "127.0.0.1", "www.example.com"))
    except (re.error, RecursionError):
        return False  # Apache's own dialect


def _installation(places: Places) -> Iterator[Finding]:
    from lossi import __version__, installing

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
        names = ", ".join(map(str, foreign))
        yield Finding(f"{what}: links", "error", f"not ours: {names}", "move that away and run `lossi install` again")
    changed = installing.edits(installed)
    if changed:
        names = ", ".join(f"{edit.path} ({edit.kind})" for edit in changed[:10]) + (" …" if len(changed) > 10 else "")
        yield Finding(
            f"{what}: files", "warning", f"not as they were installed: {names}", "`lossi install` shows how, and mends it"
        )
    else:
        yield Finding(f"{what}: files", "ok", f"{len(installed.files)}, all as they were installed")
    yield _readable(installed)
    yield from _open_to_others(places, installed)
    yield from _forms(installed)
    if places.apps.joinpath("myjobs", "templates").is_dir() and any("/myjobs/templates/" in link for link in installed.links):
        remedy = f"link {places.config}/apps/myjobs/templates/lossi-* there, or remove that folder"
        yield Finding(f"{what}: templates", "warning", f"the Job Composer looks only into {places.apps}/myjobs/templates", remedy)


def _readable(installed: Installed) -> Finding:
    """Whether every user may run what the apps run with."""
    closed = unreachable(Path(installed.python))
    if closed is None:
        return Finding("installation: environment", "ok", installed.python)
    remedy = "install with a Python that everybody may run, such as /usr/bin/python3"
    return Finding("installation: environment", "error", f"{installed.python}: not everybody may pass {closed}", remedy)


def unreachable(path: Path) -> Path | None:
    """Return the first folder or file on the way to an executable that not everybody may pass or run; a link's end is looked at too."""
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
    """Write the sessions' forms again, because they follow from catalogue and site file, or say what they should be and are not."""
    from lossi.ood import apps

    for app in apps.APPS:
        folder = installed.folder / "apps" / f"lossi-{app}"
        if not folder.is_dir():
            continue
        what = f"installation: form of lossi-{app}"
        if os.access(folder, os.W_OK):
            apps.write(app, folder)
            yield Finding(what, "ok", "written again from catalogue and site file")
        elif _text(folder / apps.FILE) is None:
            yield Finding(what, "error", "missing", "run `lossi doctor` as root: it writes it")
        else:
            yield Finding(
                what, "ok", "there; `lossi doctor` as root writes it again after the catalogue or the site file has changed"
            )


def _open_to_others(places: Places, installed: Installed) -> Iterator[Finding]:
    from lossi.files import permissions

    folders = [installed.folder, *(folder for folder in (places.apps, places.config) if folder.is_dir())]
    bad = []
    for folder in folders:
        try:
            permissions.refuse_open_ancestors(folder)
        except Forbidden as error:
            bad.append(error)
    loose = [
        str(path)
        for path in (installed.folder / name for name in installed.files)
        if not path.is_symlink() and path.exists() and path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ]
    for refusal in {error.what: error for error in bad}.values():
        yield Finding("installation: permissions", "error", refusal.what, refusal.hint)
    if loose:
        yield Finding(
            "installation: permissions",
            "error",
            f"others may write to {', '.join(loose[:5])}",
            f"chmod -R go-w {installed.folder}",
        )
    if not bad and not loose:
        yield Finding("installation: permissions", "ok", "only its owner may write to it")


def _site_file() -> Iterator[Finding]:
    from lossi import clusters, settings

    path = settings.site_file()
    if not path.exists():
        yield Finding("site file", "ok", f"there is no {path}: everything has its default")
        return
    try:
        clusters.refuse_open_to_all(path)
    except Forbidden as error:
        yield Finding("site file", "error", f"{path} {error.what}", error.hint)
        return
    status = path.stat()
    if status.st_mode & stat.S_IWGRP and status.st_gid != 0:
        yield Finding(
            "site file", "warning", f"{path} may be written by its group", f"chmod g-w {path}: it names commands for all users"
        )
    elif not status.st_mode & stat.S_IROTH:
        yield Finding("site file", "error", f"{path} may not be read by everybody", f"chmod o+r {path}")
    else:
        yield Finding("site file", "ok", str(path))


def images() -> Iterator[Finding]:
    """Look at the images of the catalogue: whether the SIF is there and of the right kind, and whether its digest is recorded."""
    from lossi import environments

    for environment in environments.load().environments:
        for name in environment.variant_names():
            arch, _, accelerator = name.partition("-")
            variant = environment.variant(arch, accelerator)
            what = f"image {environment.name}: {name}"
            pull = f"lossi env pull {environment.name} --variant {name}"
            if variant is None or not variant.sif:
                continue
            try:
                architecture = environments.images.check_image_file(variant.sif)
            except LossiError as error:
                yield Finding(what, "error", error.what, error.hint or pull)
                continue
            if architecture not in (None, arch):
                yield Finding(what, "error", f"{variant.sif} is for {architecture}", pull)
            elif variant.image and not variant.digest:
                remedy = f"{pull}: it records the digest"
                yield Finding(what, "warning", f"{variant.sif}: no digest is recorded, so it cannot be verified", remedy)
            else:
                yield Finding(what, "ok", f"{variant.sif}{f' of {variant.digest[:19]}' if variant.digest else ''}")


def apptainer(proc: Path = Path("/proc")) -> Iterator[Finding]:
    """Look whether Apptainer is on this machine, and whether ordinary users can start containers with it."""
    what = "Apptainer"
    program = shutil.which("apptainer") or shutil.which("singularity")
    if program is None:
        yield Finding(what, "ok", "not on this machine; the compute nodes need it for environments with images")
        return
    place = Path(os.path.realpath(program)).parent.parent
    starters = [path for form in ("lib*/*/bin/starter-suid", "lib*/*/*/bin/starter-suid") for path in place.glob(form)]
    if any(starter.stat().st_mode & stat.S_ISUID for starter in starters):
        yield Finding(what, "ok", f"{program}, with its set-uid starter")
        return
    most = (_text(proc / "sys/user/max_user_namespaces") or "").strip()
    clone = (_text(proc / "sys/kernel/unprivileged_userns_clone") or "1").strip()
    restricted = (_text(proc / "sys/kernel/apparmor_restrict_unprivileged_userns") or "0").strip()
    if most == "0" or clone == "0":
        key = "user.max_user_namespaces=15000" if most == "0" else "kernel.unprivileged_userns_clone=1"
        yield Finding(
            what, "error", f"{program}: users may make no user namespaces here", f"sysctl -w {key}, or install apptainer-suid"
        )
    elif restricted == "1":
        remedy = "install Apptainer's AppArmor profile (it is in its packages), or apptainer-suid"
        yield Finding(what, "warning", f"{program}: AppArmor restricts user namespaces here", remedy)
    else:
        yield Finding(what, "ok", f"{program}, through user namespaces")


def _yaml(path: Path) -> dict[str, Any]:
    """Return a file's mapping; of a missing one, an empty one.

    Raises
    ------
    LossiError
        When it cannot be read.
    """
    from lossi.files import document

    try:
        found = document.read(path)
    except document.Unreadable as error:
        where = f" (line {error.line})" if error.line else ""
        raise LossiError(f"{error.message}{where}", hint=error.hint or "correct that file") from None
    return found.data if found and isinstance(found.data, dict) else {}


def _text(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return stream.read(65536).decode("utf-8", "replace")
    except OSError:
        return None
