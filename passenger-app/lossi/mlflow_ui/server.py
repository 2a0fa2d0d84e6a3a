"""MLflow's own server application, told where its store is and kept to it.

Room: mlflow_ui. Imports `mlflow.server`, which reads variables of its own while it is imported; their names are MLflow's
internal ones (`mlflow/server/constants.py`, 3.17), so a test holds them against the MLflow that is installed.
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
"""Schemes of artifact addresses that may be followed; the last two lead to one of the first."""


class Place:
    """Where artifacts may lie at the moment, and whether they may be changed."""

    def __init__(self, root: Path, *, writable: bool) -> None:
        self.set(root, writable=writable)

    def set(self, root: Path, *, writable: bool) -> None:
        """Go to another store."""
        self.root = os.path.realpath(root)
        self.writable = writable

    def holds(self, path: Path) -> bool:
        """Whether a path, links resolved, lies below the root."""
        real = os.path.realpath(path)
        return real == self.root or real.startswith(self.root.rstrip("/") + "/")


def load(opened: Opened, hosts: Sequence[str]) -> tuple[WSGIApplication, Place]:
    """Return MLflow's application on a store, and where its artifacts are confined to. Once in a process.

    Parameters
    ----------
    opened
        The store.
    hosts
        Values of ``Host`` that are answered, with port; ``*`` where a portal has checked it.
    """
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "_MLFLOW_"))]:
        del os.environ[name]
    os.environ.update(
        {
            **variables(opened),
            SERVE_ARTIFACTS: "true",
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(hosts),
            # No CORS: what stands in front has compared the origin with the address that was asked, and takes it away.
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
    """Let the application in this process use another store, and return MLflow's objects for it, to be given again.

    No request may be under way.
    """
    import mlflow
    from mlflow.server import handlers

    os.environ.update(variables(opened))
    place.set(opened.artifacts, writable=opened.mode is Mode.WRITABLE)
    handlers._artifact_repo = None
    handlers._job_store = None
    handlers._tracking_store, handlers._model_registry_store = stores or (None, None)
    # What MLflow's own client inside follows for `runs:/` and `models:/`.
    mlflow.set_tracking_uri(opened.uri)
    mlflow.set_registry_uri(opened.uri)
    return handlers._get_tracking_store(), handlers._get_model_registry_store()


def variables(opened: Opened) -> dict[str, str]:
    """Return the variables that say where the store and its artifacts are."""
    return {STORE: opened.uri, ARTIFACT_ROOT: str(opened.artifacts), ARTIFACT_DESTINATION: opened.artifacts.as_uri()}


def distrust() -> None:
    """Let no view or trigger of a store call what could do harm: the store may be a colleague's."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "connect")
    def _(connection: Any, record: object) -> None:
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")


def confine(place: Place) -> None:
    """Keep MLflow to artifacts below the store's root, whatever addresses a store claims, and without following links out.

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
            self._inside("")

        def _inside(self, path: str | None) -> None:
            if not place.holds(Path(self.artifact_dir) / (path or "")):
                raise refused("These artifacts lie outside of the store's own folder and are not shown here.")

        def _changing(self, path: str | None) -> None:
            if not place.writable:
                raise refused("This is a copy: its artifacts cannot be changed here.")
            self._inside(path)

        def get_local_path(self, artifact_path: str) -> str:
            self._inside(artifact_path)
            return str(super().get_local_path(artifact_path))

        def list_artifacts(self, path: str | None = None) -> Any:
            self._inside(path)
            return [info for info in super().list_artifacts(path) if place.holds(Path(self.artifact_dir) / info.path)]

        def _download_file(self, remote_file_path: str, local_path: str) -> None:
            self._inside(remote_file_path)
            super()._download_file(remote_file_path, local_path)

        def _get_or_create_artifact_dir(self, artifact_path: str | None = None) -> Any:
            self._changing(artifact_path)
            return super()._get_or_create_artifact_dir(artifact_path)

        def delete_artifacts(self, artifact_path: str | None = None) -> None:
            self._changing(artifact_path)
            super().delete_artifacts(artifact_path)

    known = registry._artifact_repository_registry._registry
    for scheme in [scheme for scheme in known if scheme not in FOLLOWED]:
        del known[scheme]
    for scheme in ("", "file"):
        known[scheme] = Confined
