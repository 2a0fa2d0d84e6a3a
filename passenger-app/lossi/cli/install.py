"""``lossi install`` and ``lossi uninstall``: the bundle on a portal's host; they show the changes before they make them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lossi.cli import options, output
from lossi.errors import InvalidInput, LossiError

if TYPE_CHECKING:
    from lossi.installing import Change, Installed, Places, Plan

Prefix = Annotated[Path, typer.Option("--prefix", help="Folder that stands for / (packages, tests).")]
AppsDir = Annotated[Path | None, typer.Option("--apps-dir", help="Open OnDemand's system apps (default: /var/www/ood/apps/sys).")]
ConfigDir = Annotated[Path | None, typer.Option("--config-dir", help="Open OnDemand's configuration (default: /etc/ood/config).")]
Home = Annotated[
    Path | None,
    typer.Option("--home", help="Lossi's own folder on this host (default: that of the present installation, else /opt/lossi)."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def install(
    prefix: Prefix = Path("/"),
    apps_dir: AppsDir = None,
    config_dir: ConfigDir = None,
    home: Home = None,
    wanted: Annotated[
        list[str] | None, typer.Option("--with", help="Add a component that is left out by default; may be repeated.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Leave out a component, now and at upgrades; may be repeated.")
    ] = None,
    node_python: Annotated[
        str | None,
        typer.Option(
            "--node-python", help="Interpreter with Lossi and MLflow on compute nodes (default: the same path as here)."
        ),
    ] = None,
    keep_days: Annotated[
        float, typer.Option(min=0, help="Days to keep unused versions, in which queued jobs may yet start.")
    ] = 30,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the previous version.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    yes: Yes = False,
    as_json: options.Json = False,
) -> None:
    """Install or upgrade the portal, the apps and the templates in Open OnDemand; shows the changes, then asks."""
    from lossi import installing

    places = installing.Places.below(prefix, apps=apps_dir, config=config_dir, home=home)
    installed = installing.current(places)
    if rollback:
        _roll_back(places, installed, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    plan = _plan(places, installed, wanted=wanted or [], without=without or [], node_python=node_python)
    changes = installing.diff(plan, installed)
    installing.refuse_foreign(places, plan.links)
    missing = [link for link in plan.links if not places.is_ours(Path(link))]
    stale = sorted(set(installed.links) - set(plan.links)) if installed else []
    same = installed is not None and plan.name == installed.name and not (changes or missing or stale)
    if not as_json:
        _show(plan, installed, changes, missing, stale)
    if same or dry_run:
        if installed and same and not dry_run:
            _write_forms(installed)
        _emit(plan, changes, missing, stale, done=same, as_json=as_json)
        return
    _ask("Install this?", yes)
    new = installing.apply(plan, places, keep_days)
    _write_forms(new)
    _emit(plan, changes, missing, stale, done=True, as_json=as_json)
    if not as_json:
        output.say(f"Version {new.version} is in use. Next: lossi doctor")
        if any(change.kind == "restored" and change.before is not None for change in changes):
            output.say(f"Edited files are kept in {places.edits}.")


def _plan(places: Places, installed: Installed | None, *, wanted: list[str], without: list[str], node_python: str | None) -> Plan:
    """Return the plan; choices of an earlier installation hold until they are changed."""
    from lossi import __version__, installing

    components = installing.components(installing.shipped(), places)
    known = {component.name: str(component.link) for component in components}
    if unknown := sorted({*wanted, *without} - set(known)):
        raise InvalidInput(f"there is no component {', '.join(unknown)}", hint=f"choose from {', '.join(known)}")
    links = installed.links if installed else {}
    left_out = {*without, *(installed.without if installed else ())}
    left_out |= {name for name in installing.OPTIONAL if known.get(name) not in links}
    left_out = (left_out & set(known)) - set(wanted)
    if node_python is None:
        node_python = installed.node_python if installed else ""
    return installing.plan(
        components, places, version=__version__, python=Path(sys.executable), node_python=node_python, without=left_out
    )


def uninstall(
    prefix: Prefix = Path("/"),
    apps_dir: AppsDir = None,
    config_dir: ConfigDir = None,
    home: Home = None,
    yes: Yes = False,
) -> None:
    """Remove all that `lossi install` put on this host. Users' jobs, runs and projects do not need it."""
    from lossi import installing
    from lossi.files import text  # noqa: F401 -- loaded now, because the environment of this process is removed too

    places = installing.Places.below(prefix, apps=apps_dir, config=config_dir, home=home)
    installed = installing.current(places)
    for link in sorted(installed.links) if installed else ():
        output.say(f"- {link}")
    if installed:
        output.say(f"- {places.home}")
        _ask("Remove all of this?", yes)
    kept = installing.uninstall(places)
    output.say("Removed." if kept is None else f"Removed all but {kept}, which holds edited files.")


def _roll_back(places: Places, installed: Installed | None, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    from lossi import installing

    target = installing.previous(places)
    if target is not None and not as_json:
        output.say(f"From {installed.folder.name if installed else 'nothing'} back to {target.folder.name}")
    if target is not None and not dry_run:
        _ask("Go back to it?", yes)
    if target is None or not dry_run:
        target = installing.rollback(places)
        _write_forms(target)
    version = target.version
    output.emit(
        {"version": version, "name": target.folder.name, "done": not dry_run},
        as_json,
        lambda: output.say("Nothing was changed." if dry_run else f"Version {version} is in use."),
    )


def _write_forms(installed: Installed) -> None:
    """Write the sessions' forms; an error only leaves a note, because they can be written again at any time."""
    from lossi.ood import apps

    for app in apps.APPS:
        folder = installed.folder / "apps" / f"lossi-{app}"
        if not folder.is_dir():
            continue
        try:
            apps.write(app, folder)
        except LossiError as error:
            output.note(f"the form of lossi-{app} was not written: {error}; correct that and run `lossi install` again")


def _show(plan: Plan, installed: Installed | None, changes: list[Change], missing: list[str], stale: list[str]) -> None:
    marks = {"new": "+", "changed": "~", "removed": "-", "restored": "!"}
    if installed is None:
        output.say(
            f"Lossi {plan.version}, {len(plan.files)} files" + (f"; left out: {', '.join(plan.without)}" if plan.without else "")
        )
    else:
        output.say(f"From {installed.folder.name} to {plan.name}")
        for change in changes:
            output.say(f"{marks[change.kind]} {change.path}{' (edited)' if change.kind == 'restored' else ''}")
            for line in change.lines():
                output.say(f"    {line}")
    for link in sorted(missing):
        output.say(f"+ {link}")
    for link in stale:
        output.say(f"- {link}")
    if not (changes or missing or stale):
        output.say("Only permissions change." if installed and plan.name != installed.name else "Up to date: nothing to do.")


def _emit(plan: Plan, changes: list[Change], missing: list[str], stale: list[str], *, done: bool, as_json: bool) -> None:
    document: dict[str, Any] = {
        "version": plan.version,
        "name": plan.name,
        "done": done,
        "changes": [{"kind": change.kind, "path": change.path} for change in changes],
        "links": {"new": sorted(missing), "removed": stale},
    }
    output.emit(document, as_json, lambda: None)


def _ask(question: str, yes: bool) -> None:
    """Ask the person at the terminal.

    Raises
    ------
    InvalidInput
        If there is no terminal and ``--yes`` was not given.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput("no terminal to ask on", hint="check with --dry-run, then pass --yes")
    typer.confirm(question, abort=True)
