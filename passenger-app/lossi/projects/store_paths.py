"""How MLflow writes the places of a project's store and artifacts, for any path that a user may choose.

Touches one link in the user's state folder, and only for paths that MLflow's URIs cannot say.
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
    """Return where an experiment's artifacts lie, in the form that MLflow reads back as the same folder.

    A plain absolute path; a ``file://`` URI where the path holds ``%`` (MLflow unquotes plain paths,
    `mlflow.utils.file_utils.local_file_uri_to_path`) or is not UTF-8.
    """
    path = project.artifacts / experiment_id
    text = os.fspath(path)
    return path.as_uri() if "%" in text or not is_utf8(text) else text


def local_path(uri: str) -> Path | None:
    """Return the path that an artifact location or URI of MLflow means, or None when it is not on this filesystem."""
    if uri.startswith("file:"):
        parts = urlsplit(uri)
        return Path(os.fsdecode(unquote(parts.path, errors="surrogateescape"))) if parts.netloc in ("", "localhost") else None
    return Path(unquote(uri, errors="surrogateescape")) if uri.startswith("/") else None


def tracking_uri(project: Project) -> str:
    """Return the URI by which an MLflow client opens the project's store.

    ``sqlite:///`` URIs have no form that every SQLAlchemy reads alike for paths with ``?``, ``#`` or ``%``, and such a path
    fails silently with an empty store elsewhere. There, the URI goes through a link in the user's state folder.

    Raises
    ------
    Forbidden, Unavailable
        When that link is needed and cannot be made.
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
    """Return whether a text can be written as UTF-8, which a path need not be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
