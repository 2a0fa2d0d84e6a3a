"""The apps that ask, by the names of their folders in ``ood-apps``; what each adds lies in a module of its own."""

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
"""What the template of a form prints."""


@dataclass(frozen=True)
class App:
    """What an app asks for.

    Attributes
    ----------
    form
        Returns the form of this site as it is now.
    submit
        Prepares the folder of a session from what the form sent, and returns what ``submit.yml`` is to say.
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
        When there is none of this name.
    """
    if name not in APPS:
        raise InvalidInput(f"there is no app {name[:80]!r}", hint=did_you_mean(name, APPS) or f"there are {', '.join(APPS)}")
    return APPS[name]


def write(name: str, folder: Path) -> Path:
    """Write the form of an app into its installed folder, where its template finds it, and return the file.

    Raises
    ------
    Forbidden, Unavailable
        When it cannot be written.
    """
    path = folder / FILE
    atomic.write(path, json.dumps(get(name).form(), ensure_ascii=False).encode("utf-8"), mode=0o644)
    path.chmod(0o644)  # whatever the umask of whoever installs
    return path
