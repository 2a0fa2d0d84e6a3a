"""The apps with a form, by the names of their folders in ``ood-apps``; each has a module for what it adds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossi.errors import InvalidInput, did_you_mean
from lossi.files import atomic
from lossi.ood import jupyter, mlflow_session

FILE = "form.json"
"""Printed by the template of a form."""


@dataclass(frozen=True)
class App:
    """An app with a form.

    Attributes
    ----------
    form
        Returns the site's present form.
    submit
        Prepares a session's folder and returns the content of ``submit.yml``. Takes the form's values by field, with the folder as
        ``staged_root``; raises `LossiError` for a value that is not valid, and says what to change.
    """

    form: Callable[[], dict[str, Any]]
    submit: Callable[[Mapping[str, str]], dict[str, Any]]


APPS = {
    "jupyter": App(jupyter.form, jupyter.submit),
    "mlflow-session": App(mlflow_session.form, mlflow_session.submit),
}


def get(name: str) -> App:
    """Return an app.

    Raises
    ------
    InvalidInput
        If no app has this name.
    """
    if name not in APPS:
        raise InvalidInput(f"there is no app {name[:80]!r}", hint=did_you_mean(name, APPS) or f"choose one of {', '.join(APPS)}")
    return APPS[name]


def write(name: str, folder: Path) -> Path:
    """Write an app's form into its installed folder, for its template, and return the file.

    Raises
    ------
    Forbidden, Unavailable
        If it cannot be written.
    """
    path = folder / FILE
    atomic.write(path, json.dumps(get(name).form(), ensure_ascii=False).encode("utf-8"), mode=0o644)
    path.chmod(0o644)  # whatever the umask is
    return path
