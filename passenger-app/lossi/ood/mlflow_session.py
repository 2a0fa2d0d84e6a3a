"""The MLflow app: its form from the site file, and what its job reads. MLflow itself is not asked: that is the job's part."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lossi import projects
from lossi.errors import Forbidden, InvalidInput, NotSupported
from lossi.files import atomic, roots
from lossi.ood import forms, sessions
from lossi.projects import Project, stores

FIELDS = ("store", forms.PARTITION, "cores", "memory_gb", "hours", "account")


def form() -> dict[str, Any]:
    """Return the form of this site as it is now; partitions without GPUs come first."""
    offered, said = forms.offered()
    where = sorted(forms.places(offered), key=lambda place: place.most_gpus != 0)
    if not offered:
        said.insert(0, f"{forms.NOTHING}: no cluster is configured.")
    told = "The folder of a project in which a job of Lossi has run, or the folder in which you used MLflow before."
    attributes = {
        "store": {
            "widget": "path_selector",
            "label": "Project, or an old mlruns folder",
            "help": forms.plain(" ".join([told, *said])),
            "required": True,
            "show_files": False,
            "show_hidden": False,
        },
        forms.PARTITION: forms.partition(where, FIELDS),
        **forms.amounts(where, cores=2, memory_gb=4, hours=2),
        "account": forms.account(offered),
    }
    return forms.form(offered, FIELDS, attributes, said)


def submit(values: Mapping[str, str]) -> dict[str, Any]:
    """Prepare the folder of a session and return what ``submit.yml`` is to say.

    Parameters
    ----------
    values
        The form's fields by name, as texts, and ``staged_root``, the session's folder.

    Raises
    ------
    LossiError
        For whatever cannot be; says what to change.
    """
    place = sessions.place(values)
    asked = sessions.resources(values, place)
    request = sessions.request(asked, place.cluster)
    session = {"store": str(_store(values.get("store", "")))}
    with sessions.staged(values) as folder:
        atomic.write(folder / sessions.SESSION, json.dumps(session).encode(), mode=0o600)
    return sessions.submission(place, asked, request, ["mode"])


def _store(text: str) -> Path:
    """Return the folder whose runs are to be shown, as far as that can be known without MLflow; the job looks again."""
    text = text.strip(" ")
    if sessions.CONTROL.search(text):
        raise InvalidInput("the folder's name holds control characters", hint="choose another folder, or rename it")
    if not text.startswith(("/", "~")):
        shown = f"{text[:200]!r} is not an absolute path" if text else "no folder is named"
        raise InvalidInput(shown, hint="choose a project, or an old mlruns folder")
    try:
        path = Path(os.path.realpath(os.path.expanduser(text)))  # noqa: PTH111 - Path.expanduser raises for an unknown ~user
    except UnicodeEncodeError:
        raise InvalidInput("the folder's name holds half a character (a lone surrogate)", hint="choose another folder") from None
    _refuse_outside(path)
    found = projects.runs_in(str(path))
    folder = found.root if isinstance(found, Project) else found
    _refuse_outside(folder)  # an mlruns that is a link
    if isinstance(found, Project) and stores.revision(found.store) not in stores.KNOWN_REVISIONS:
        raise NotSupported(
            f"the runs of {folder} are kept in a form that MLflow would change in place",
            why="older programs could not read it afterwards",
            hint="look at them in Lossi itself, which reads them as they are",
        )
    return folder


def _refuse_outside(path: Path) -> None:
    """Refuse a folder that is neither below the allowed ones nor in a project that the user has opened."""
    allowed = roots.default()
    known = [project.root for project in projects.registered() if roots.portal_allows(project.root)]
    if not allowed.allows(path) and not any(path.is_relative_to(root) for root in known):
        names = ", ".join(str(root) for root in allowed.paths) or "none"
        raise Forbidden(f"{str(path)[:200]} is outside the allowed folders", hint=f"allowed are your projects and: {names}")
