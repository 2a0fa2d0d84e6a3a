"""The MLflow app: its form from the site file, and what its job reads. MLflow itself runs only in the job."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lossi import projects
from lossi.contract.text import CONTROL
from lossi.errors import Forbidden, InvalidInput, NotSupported
from lossi.files import atomic, roots
from lossi.ood import forms, sessions
from lossi.projects import Project, stores

FIELDS = ("store", forms.PARTITION, "cores", "memory_gb", "hours", "account")


def form() -> dict[str, Any]:
    """Return the site's present form; partitions without GPUs come first."""
    clusters, problems = forms.offered()
    places = sorted(forms.places(clusters), key=lambda place: place.most_gpus != 0)
    if not clusters:
        problems.insert(0, f"{forms.NOTHING}: no cluster is configured.")
    text = "The folder of a project in which a job of Lossi has run, or the folder in which you used MLflow before."
    attributes = {
        "store": {
            "widget": "path_selector",
            "label": "Project, or an old mlruns folder",
            "help": forms.plain(" ".join([text, *problems])),
            "required": True,
            "show_files": False,
            "show_hidden": False,
        },
        forms.PARTITION: forms.partition(places, FIELDS),
        **forms.amounts(places, cores=2, memory_gb=4, hours=2),
        "account": forms.account(clusters),
    }
    return forms.form(clusters, FIELDS, attributes, problems)


def submit(values: Mapping[str, str]) -> dict[str, Any]:
    """Prepare a session's folder and return the content of ``submit.yml``, as `apps.App.submit`."""
    place = sessions.place(values)
    resources = sessions.resources(values, place)
    options = sessions.options(resources, place.cluster)
    session = {"store": str(_store(values.get("store", "")))}
    with sessions.staged(values) as folder:
        atomic.write(folder / sessions.SESSION, json.dumps(session).encode(), mode=0o600)
    return sessions.submission(place, options, ["mode"])


def _store(text: str) -> Path:
    """Return the folder with the runs, checked as far as possible without MLflow; the job checks again."""
    text = text.strip(" ")
    if CONTROL.search(text):
        raise InvalidInput("the folder's name contains control characters", hint="choose another folder, or rename it")
    if not text.startswith(("/", "~")):
        problem = f"{text[:200]!r} is not an absolute path" if text else "no folder was given"
        raise InvalidInput(problem, hint="choose a project, or an old mlruns folder")
    try:
        path = Path(os.path.realpath(os.path.expanduser(text)))  # noqa: PTH111 - Path.expanduser raises for an unknown ~user
    except UnicodeEncodeError:
        raise InvalidInput(
            "the folder's name contains half a character (a lone surrogate)", hint="choose another folder"
        ) from None
    _refuse_outside(path)
    store = projects.runs_in(str(path))
    folder = store.root if isinstance(store, Project) else store
    _refuse_outside(folder)  # an mlruns that is a link
    if isinstance(store, Project) and stores.revision(store.store) not in stores.KNOWN_REVISIONS:
        raise NotSupported(
            f"the store of {folder} has a schema that MLflow would change in place",
            why="older programs could not read it afterwards",
            hint="look at its runs in Lossi itself, which reads it as it is",
        )
    return folder


def _refuse_outside(path: Path) -> None:
    """Refuse a folder outside the allowed ones and outside the projects that the user has opened."""
    allowed = roots.default()
    opened = [project.root for project in projects.registered() if roots.portal_allows(project.root)]
    if not allowed.allows(path) and not any(path.is_relative_to(root) for root in opened):
        names = ", ".join(str(root) for root in allowed.paths) or "none"
        raise Forbidden(f"{str(path)[:200]} is outside the allowed folders", hint=f"allowed: your projects and {names}")
