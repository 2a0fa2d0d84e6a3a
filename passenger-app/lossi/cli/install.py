"""``lossi install`` and ``lossi uninstall``: the bundle on a portal's host, shown before it is done."""

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
AppsDir = Annotated[Path | None, typer.Option("--apps-dir", help="Open OnDemand's system apps; unset: /var/www/ood/apps/sys.")]
ConfigDir = Annotated[Path | None, typer.Option("--config-dir", help="Open OnDemand's configuration; unset: /etc/ood/config.")]
Home = Annotated[
    Path | None,
    typer.Option("--home", help="Lossi's own folder on this host; unset: where it is installed already, else /opt/lossi."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


def install(
    prefix: Prefix = Path("/"),
    apps_dir: AppsDir = None,
    config_dir: ConfigDir = None,
    home: Home = None,
    wanted: Annotated[
        list[str] | None, typer.Option("--with", help="Also a component that is left out otherwise; may be repeated.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Leave a component out, now and at upgrades; may be repeated.")
    ] = None,
    node_python: Annotated[
        str | None,
        typer.Option(
            "--node-python", help="Interpreter with Lossi and MLflow as compute nodes see it; unset: the same path as here."
        ),
    ] = None,
    keep_days: Annotated[
        float, typer.Option(min=0, help="Days that versions out of use are kept, because queued jobs may start in them.")
    ] = 30,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the version before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and end.")] = False,
    yes: Yes = False,
    as_json: options.Json = False,
) -> None:
    """Put the portal, the apps and the templates into Open OnDemand, or upgrade them; shows what changes, then asks."""
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
            _forms(installed)
        _emit(plan, changes, missing, stale, done=same, as_json=as_json)
        return
    _ask("Install this?", yes)
    done = installing.apply(plan, places, keep_days)
    _forms(done)
    _emit(plan, changes, missing, stale, done=True, as_json=as_json)
    if not as_json:
        output.say(f"Version {done.version} is in use. Next: lossi doctor")
        if any(change.kind == "restored" and change.before is not None for change in changes):
            output.say(f"The files that had been edited are kept in {places.edits}.")


def _plan(places: Places, installed: Installed | None, *, wanted: list[str], without: list[str], node_python: str | None) -> Plan:
    """Return what to install; what was chosen at an earlier installation holds until something else is said."""
    from lossi import __version__, installing

    found = installing.components(installing.shipped(), places)
    known = {component.name: str(component.link) for component in found}
    if unknown := sorted({*wanted, *without} - set(known)):
        raise InvalidInput(f"there is no component {', '.join(unknown)}", hint=f"there are {', '.join(known)}")
    there = installed.links if installed else {}
    left_out = {*without, *(installed.without if installed else ())}
    left_out |= {name for name in installing.OPTIONAL if known.get(name) not in there}
    left_out = (left_out & set(known)) - set(wanted)
    if node_python is None:
        node_python = installed.node_python if installed else ""
    return installing.plan(
        found, places, version=__version__, python=Path(sys.executable), node_python=node_python, without=left_out
    )


def uninstall(
    prefix: Prefix = Path("/"),
    apps_dir: AppsDir = None,
    config_dir: ConfigDir = None,
    home: Home = None,
    yes: Yes = False,
) -> None:
    """Take away all that `lossi install` has put on this host. Jobs, runs and projects of users do not need it."""
    from lossi import installing
    from lossi.files import text  # noqa: F401 -- the environment that this runs in goes too: what prints must be there before

    places = installing.Places.below(prefix, apps=apps_dir, config=config_dir, home=home)
    installed = installing.current(places)
    for link in sorted(installed.links) if installed else ():
        output.say(f"- {link}")
    if installed:
        output.say(f"- {places.home}")
        _ask("Remove all this?", yes)
    kept = installing.uninstall(places)
    output.say("Nothing is left." if kept is None else f"Nothing is left but {kept}: files that had been edited by hand.")


def _roll_back(places: Places, installed: Installed | None, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    from lossi import installing

    before = installing.previous(places)
    if before is not None and not as_json:
        output.say(f"From {installed.folder.name if installed else 'nothing'} back to {before.folder.name}")
    if before is not None and not dry_run:
        _ask("Go back to it?", yes)
    done = before if dry_run and before else installing.rollback(places)
    if not dry_run:
        _forms(done)
    output.emit(
        {"version": done.version, "name": done.folder.name, "done": not dry_run},
        as_json,
        lambda: output.say("Nothing was changed." if dry_run else f"Version {done.version} is in use."),
    )


def _forms(installed: Installed) -> None:
    """Write the forms that follow from catalogue and site file; they can be written again at any time, so a fault stops nothing."""
    from lossi.ood import apps

    for app in apps.APPS:
        folder = installed.folder / "apps" / f"lossi-{app}"
        if not folder.is_dir():
            continue
        try:
            apps.write(app, folder)
        except LossiError as error:
            output.note(f"the form of lossi-{app} was not written: {error}; correct it, then run `lossi install` again")


def _show(plan: Plan, installed: Installed | None, changes: list[Change], missing: list[str], stale: list[str]) -> None:
    marks = {"new": "+", "changed": "~", "removed": "-", "restored": "!"}
    if installed is None:
        output.say(
            f"Lossi {plan.version}, {len(plan.files)} files" + (f"; left out: {', '.join(plan.without)}" if plan.without else "")
        )
    else:
        output.say(f"From {installed.folder.name} to {plan.name}")
        for change in changes:
            output.say(f"{marks[change.kind]} {change.path}{' (was edited by hand)' if change.kind == 'restored' else ''}")
            for line in change.lines():
                output.say(f"    {line}")
    for link in sorted(missing):
        output.say(f"+ {link}")
    for link in stale:
        output.say(f"- {link}")
    if not (changes or missing or stale):
        output.say("Permissions only." if installed and plan.name != installed.name else "All is as it should be: nothing to do.")


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
        When nobody is there to answer and ``--yes`` was not said.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput("nobody is there to be asked", hint="look at it with --dry-run, then say --yes")
    typer.confirm(question, abort=True)
