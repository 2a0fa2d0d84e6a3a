"""MLflow's own server application, confined to one store.

Imports `mlflow.server`, which reads variables on import; their names are internal to MLflow (`mlflow/server/constants.py`, 3.17),
so a test compares them with the installed MLflow.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossi.mlflow_ui import gate
from lossi.mlflow_ui.opening import Mode, Opened

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

STORE = "_MLFLOW_SERVER_FILE_STORE"
ARTIFACT_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"
SERVE_ARTIFACTS = "_MLFLOW_SERVER_SERVE_ARTIFACTS"
ARTIFACT_DESTINATION = "_MLFLOW_SERVER_ARTIFACT_DESTINATION"
FOLLOWED = ("", "file", "runs", "models")
"""Allowed schemes of artifact addresses; the last two lead to one of the first two."""


class Place:
    """The folder to which artifacts are confined, and whether they may be changed."""

    def __init__(self, root: Path, *, writable: bool) -> None:
        self.set(root, writable=writable)

    def set(self, root: Path, *, writable: bool) -> None:
        """Change to the folder of another store."""
        self.root = os.path.realpath(root)
        self.writable = writable

    def holds(self, path: Path) -> bool:
        """Return whether a path, with links resolved, is below the root."""
        real = os.path.realpath(path)
        return real == self.root or real.startswith(self.root.rstrip("/") + "/")


def load(opened: Opened, hosts: Sequence[str]) -> tuple[WSGIApplication, Place]:
    """Return MLflow's application on a store, and its folder of artifacts. Once per process.

    Parameters
    ----------
    opened
        The store.
    hosts
        Accepted values of ``Host``, with port; ``*`` if a portal has checked it.
    """
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "_MLFLOW_"))]:
        del os.environ[name]
    os.environ.update(
        {
            **variables(opened),
            SERVE_ARTIFACTS: "true",
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(hosts),
            # No CORS: the gate in front has checked the origin and removed it.
            "MLFLOW_SERVER_X_FRAME_OPTIONS": "SAMEORIGIN",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }
    )
    import mlflow.server

    distrust()
    place = Place(opened.artifacts, writable=opened.mode is Mode.WRITABLE)
    confine(place)
    return gate.Inert(mlflow.server.app), place


def switch(opened: Opened, place: Place, stores: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
    """Let the application use another store, and return MLflow's objects for it, to be passed in the next time.

    No other request may be running.
    """
    import mlflow
    from mlflow.server import handlers

    os.environ.update(variables(opened))
    place.set(opened.artifacts, writable=opened.mode is Mode.WRITABLE)
    handlers._artifact_repo = None
    handlers._job_store = None
    handlers._tracking_store, handlers._model_registry_store = stores or (None, None)
    # Used by MLflow's own client for `runs:/` and `models:/`.
    mlflow.set_tracking_uri(opened.uri)
    mlflow.set_registry_uri(opened.uri)
    return handlers._get_tracking_store(), handlers._get_model_registry_store()


def variables(opened: Opened) -> dict[str, str]:
    """Return MLflow's variables for the store and its artifacts."""
    return {STORE: opened.uri, ARTIFACT_ROOT: str(opened.artifacts), ARTIFACT_DESTINATION: opened.artifacts.as_uri()}


def distrust() -> None:
    """Let no view or trigger of a store call unsafe functions: the store may be a colleague's."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "connect")
    def _(connection: Any, record: object) -> None:
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")


def confine(place: Place) -> None:
    """Confine MLflow to artifacts below the store's root, whatever addresses the store has; links out are not followed.

    A colleague's store can name any folder of the reader as an artifact folder, or another server.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
    from mlflow.store.artifact import artifact_repository_registry as registry
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    def refused(text: str) -> Exception:
        error: Exception = MlflowException(text, error_code=PERMISSION_DENIED)
        return error

    class Confined(LocalArtifactRepository):  # type: ignore[misc]
        def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
            super().__init__(artifact_uri, tracking_uri, registry_uri)
            self._check_inside("")

        def _check_inside(self, path: str | None) -> None:
            if not place.holds(Path(self.artifact_dir) / (path or "")):
                raise refused("These artifacts are outside the store's folder and are not shown here.")

        def _check_writable(self, path: str | None) -> None:
            if not place.writable:
                raise refused("This is a copy: its artifacts cannot be changed here.")
            self._check_inside(path)

        def get_local_path(self, artifact_path: str) -> str:
            self._check_inside(artifact_path)
            return str(super().get_local_path(artifact_path))

        def list_artifacts(self, path: str | None = None) -> Any:
            self._check_inside(path)
            return [info for info in super().list_artifacts(path) if place.holds(Path(self.artifact_dir) / info.path)]

        def _download_file(self, remote_file_path: str, local_path: str) -> None:
            self._check_inside(remote_file_path)
            super()._download_file(remote_file_path, local_path)

        def _get_or_create_artifact_dir(self, artifact_path: str | None = None) -> Any:
            self._check_writable(artifact_path)
            return super()._get_or_create_artifact_dir(artifact_path)

        def delete_artifacts(self, artifact_path: str | None = None) -> None:
            self._check_writable(artifact_path)
            super().delete_artifacts(artifact_path)

    known = registry._artifact_repository_registry._registry
    for scheme in [scheme for scheme in known if scheme not in FOLLOWED]:
        del known[scheme]
    for scheme in ("", "file"):
        known[scheme] = Confined
