"""The paths of a project's store and artifacts in MLflow's notation, for any path of a project.

Creates a link in the user's state folder, only for paths that MLflow's URIs cannot express.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lossi import settings
from lossi.files import atomic
from lossi.projects.project import Project


def artifact_location(project: Project, experiment_id: str) -> str:
    """Return an experiment's artifact location in a form that MLflow resolves to the same folder.

    A plain absolute path; a ``file://`` URI if the path contains ``%`` (MLflow unquotes plain paths,
    `mlflow.utils.file_utils.local_file_uri_to_path`) or is not UTF-8.
    """
    path = project.artifacts / experiment_id
    text = os.fspath(path)
    return path.as_uri() if "%" in text or not is_utf8(text) else text


def local_path(uri: str) -> Path | None:
    """Return the path for one of MLflow's artifact locations or URIs, or None if it is not on this filesystem."""
    if uri.startswith("file:"):
        parts = urlsplit(uri)
        return Path(os.fsdecode(unquote(parts.path, errors="surrogateescape"))) if parts.netloc in ("", "localhost") else None
    return Path(unquote(uri, errors="surrogateescape")) if uri.startswith("/") else None


def tracking_uri(project: Project) -> str:
    """Return the URI with which an MLflow client opens the project's store.

    SQLAlchemy versions read ``sqlite:///`` URIs of paths with ``?``, ``#`` or ``%`` differently, and silently create an empty store
    elsewhere. For such paths the URI goes through a link in the user's state folder.

    Raises
    ------
    Forbidden, Unavailable
        When that link cannot be created.
    """
    text = os.fspath(project.store)
    if not re.search(r"[?#%]", text) and is_utf8(text):
        return f"sqlite:///{text}"
    name = hashlib.sha256(os.fsencode(project.home)).hexdigest()[:16]
    link = settings.state_dir() / "stores" / name
    try:
        link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            link.symlink_to(project.home)
    except OSError as error:
        raise atomic.explained(error, link) from error
    return f"sqlite:///{link / project.store.name}"


def is_utf8(text: str) -> bool:
    """Return whether a text can be encoded as UTF-8, which is not true of every path."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
