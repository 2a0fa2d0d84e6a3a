"""The doctor's checks of Open OnDemand: its version, the dashboard's settings, the proxy to compute nodes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lossi.cli.doctor.finding import Finding
from lossi.errors import LossiError
from lossi.installing import Places

OLDEST, NEWEST = (3, 1), (4, 2)
"""Supported versions of Open OnDemand."""
ROOT = Path("/")
TRUE = ("1", "true", "yes", "on")
WIDE = ("[^/]+", "[^/]*", ".+", ".*", r"[\w.-]+")
"""Values of ``host_regex`` that let the proxy reach any host; the first is Open OnDemand's default."""


def findings(prefix: Path = ROOT) -> Iterator[Finding]:
    """Check Open OnDemand on the host whose root folder is ``prefix``; reads only."""
    places = Places.below(prefix)
    version = _text(prefix / "opt/ood/VERSION")
    if version is None and not places.config.is_dir():
        yield Finding("Open OnDemand", "ok", "not on this machine")
        return
    yield _version((version or "").strip())
    yield from _settings(places)
    yield from _proxy(places.config / "ood_portal.yml")


def _version(text: str) -> Finding:
    numbers = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    supported = f"Lossi supports {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    if len(numbers) < 2:
        return Finding("Open OnDemand", "warning", "unknown version", supported)
    if numbers < OLDEST:
        return Finding("Open OnDemand", "error", f"version {text}", f"upgrade it: {supported}")
    if numbers > NEWEST:
        return Finding("Open OnDemand", "warning", f"version {text}", f"{supported}: try a session first")
    return Finding("Open OnDemand", "ok", f"version {text}")


def _settings(places: Places) -> Iterator[Finding]:
    """Check the dashboard's settings, read in its own order."""
    folder = places.config / "ondemand.d"
    merged: dict[str, Any] = {}
    templates = []
    for path in sorted([*folder.glob("*.yml"), *folder.glob("*.yaml"), *folder.glob("*.erb")]):
        if path.suffix == ".erb":
            templates.append(path.name)
            continue
        try:
            data = _yaml(path)
        except LossiError as error:
            yield Finding("Open OnDemand: settings", "error", f"{path} {error.what}", error.hint)
            continue
        merged.update(data)
        if path.stat().st_uid != 0 and os.geteuid() == 0:
            remedy = f"chown root {path}: the dashboard ignores it otherwise"
            yield Finding("Open OnDemand: settings", "warning", f"{path} does not belong to root", remedy)
    unread = f" ({', '.join(templates)} cannot be read here)" if templates else ""
    file = folder / "lossi.yml"
    if _flag(merged, "bc_dynamic_js", places):
        yield Finding("Open OnDemand: bc_dynamic_js", "ok", "on")
    else:
        detail = f"off: forms also show choices that do not go together{unread}"
        remedy = f"write `bc_dynamic_js: true` into {file}, then restart the users' web servers (menu Help)"
        yield Finding("Open OnDemand: bc_dynamic_js", "warning", detail, remedy)
    if _flag(merged, "csp_enabled", places):
        detail = "on: the dashboard blocks the scripts of all apps' forms (form.js)"
        remedy = f"write `csp_enabled: false` into {file}, or accept forms that show every choice"
        yield Finding("Open OnDemand: csp_enabled", "warning", detail, remedy)


def _flag(settings: dict[str, Any], name: str, places: Places) -> bool:
    """Return whether a setting of the dashboard is on; its environment file overrides its settings."""
    for line in (_text(places.config / "apps" / "dashboard" / "env") or "").splitlines():
        key, _, value = line.strip().removeprefix("export ").partition("=")
        if key.strip() == f"OOD_{name.upper()}":
            return value.strip().strip("'\"").lower() in TRUE
    return str(settings.get(name, "")).lower() in TRUE


def _proxy(path: Path) -> Iterator[Finding]:
    """Check that the portal's proxy reaches sessions, and nothing else."""
    what = "Open OnDemand: proxy"
    if path.exists() and not os.access(path, os.R_OK):
        yield Finding(what, "warning", f"you may not read {path}", "run `lossi doctor` as root too")
        return
    try:
        data = _yaml(path)
    except LossiError as error:
        yield Finding(what, "error", f"{path} {error.what}", error.hint)
        return
    missing = [key for key, usual in (("node_uri", "/node"), ("rnode_uri", "/rnode")) if data.get(key) != usual]
    after = "then run update_ood_portal and restart Apache"
    if missing:
        lines = " and ".join(f"`{key}: /{key.removesuffix('_uri')}`" for key in missing)
        detail = f"{', '.join(missing)} not set: sessions cannot be reached"
        yield Finding(what, "error", detail, f"write {lines} into {path}, {after}")
    else:
        yield Finding(what, "ok", "node_uri and rnode_uri are set")
    regex = str(data.get("host_regex") or "[^/]+")
    if _is_wide(regex):
        example = r"`host_regex: '(cpu|gpu)\d+(\.example\.org)?'`"
        detail = f"{regex!r} lets any user reach any host and port through the portal"
        remedy = f"write the names of your compute nodes into {path}, such as {example}, {after}"
        yield Finding(f"{what}: host_regex", "warning", detail, remedy)
    else:
        yield Finding(f"{what}: host_regex", "ok", regex)


def _is_wide(regex: str) -> bool:
    """Return whether the expression matches hosts that are not compute nodes of any site."""
    if regex in WIDE:
        return True
    try:
        return all(re.fullmatch(regex, host) for host in ("localhost", "127.0.0.1", "www.example.com"))
    except (re.error, RecursionError):
        return False  # syntax that only Apache knows


def _yaml(path: Path) -> dict[str, Any]:
    """Return a file's mapping; an empty one if the file is missing or holds something else.

    Raises
    ------
    LossiError
        If it cannot be read.
    """
    from lossi.files import document

    try:
        content = document.read(path)
    except document.Unreadable as error:
        line = f" (line {error.line})" if error.line else ""
        raise LossiError(f"{error.message}{line}", hint=error.hint or "correct that file") from None
    return content.data if content and isinstance(content.data, dict) else {}


def _text(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return stream.read(65536).decode("utf-8", "replace")
    except OSError:
        return None
