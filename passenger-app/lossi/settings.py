"""Settings of the site and the user, and the paths of Lossi's own files.

Precedence: command-line option, environment variable, user's file, site's file, default. A limit set by the site can only be
lowered. Imports only `errors`.

Files: ``$LOSSI_SITE`` or ``/etc/lossi/site.yml``; ``$XDG_CONFIG_HOME/lossi/settings.yml``.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lossi.errors import InvalidInput


class Settings(BaseModel):
    """Settings of a site or user; each can also be set as ``LOSSI_<NAME>`` in the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    catalogs: tuple[Path, ...] = Field((), description="Catalogue files of the site, merged over the shipped one.")
    roots: tuple[Path, ...] = Field(
        (), description="Folders that projects and files must be in; empty: the home folder, the current project and $TMPDIR."
    )
    quota_files: tuple[Path, ...] = Field(
        (), description="Quota files in the format of Open OnDemand's `OOD_QUOTA_PATH`, read in addition to those."
    )
    shared_projects: tuple[Path, ...] = Field((), description="Projects listed for every user who can read them.")
    allow_local_scheduler: bool | None = Field(
        None, description="Whether jobs can run on this machine; unset: only if there is no sbatch and not inside Open OnDemand."
    )
    local_slots: int | None = Field(
        None, ge=1, le=4096, description="Number of tasks that the local scheduler runs at once; unset: one per core."
    )
    sif_folder: Path | None = Field(
        None,
        description="Folder for Apptainer images from `lossi env build` and `pull`. Images are large: do not use a home folder.",
    )
    cancel_grace_s: float = Field(10.0, ge=0, le=600, description="Seconds between SIGTERM and SIGKILL.")
    untracked_limit_mb: int = Field(50, ge=0, description="Total size of untracked files in a code snapshot, in MiB.")
    output_limit_mb: int = Field(1024, ge=0, description="Total size of a task's new files that are collected, in MiB.")
    max_tasks: int = Field(20000, ge=1, le=1_000_000, description="Maximum number of tasks in a sweep.")
    ingest_budget_s: float = Field(
        0.2,
        ge=0,
        description="Time that a page spends on ingesting finished results before a child process takes over, in seconds.",
    )
    render_limit_mb: int = Field(2048, ge=64, description="Memory limit for rendering a notebook, in MiB.")
    render_timeout_s: int = Field(120, ge=1, description="Time limit for rendering a notebook, in seconds.")
    accel_redirect: str | None = Field(
        None,
        pattern="^(|/[A-Za-z0-9._~/-]*)$",
        description="Internal nginx location that serves absolute paths below it, for sending large files; empty: never; "
        "unset: `/sendfile` behind Open OnDemand's nginx.",
    )
    portal_url: str | None = Field(
        None,
        pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?$",
        description="Address of Open OnDemand in browsers, such as `https://ondemand.example.org`: sessions answer only pages from "
        "there; unset: the address at which the session's form was opened.",
    )
    mlflow_embedded_url: str | None = Field(
        None,
        pattern="^/[A-Za-z0-9._~/-]*$",
        description="Path of the app `mlflow-embedded`, such as `/pun/sys/lossi-mlflow-embedded`; runs link to it. Unset: no links.",
    )
    serve_port: int = Field(8477, ge=0, le=65535, description="Port of `lossi serve`; 0: any free port.")


LIMITS = ("untracked_limit_mb", "output_limit_mb", "max_tasks", "render_limit_mb", "render_timeout_s")
"""Settings that a user can only lower if the site sets them."""


def site_file() -> Path:
    """Return the path of the site file, whether or not it exists."""
    return Path(os.environ.get("LOSSI_SITE") or "/etc/lossi/site.yml")


def config_dir() -> Path:
    """Return the folder of the user's settings and catalogue."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "lossi"


def state_dir() -> Path:
    """Return the folder of persistent state: registry of projects, queue of the local scheduler."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "lossi"


def cache_dir() -> Path:
    """Return the folder of data that can be recreated: rendered notebooks, template stores."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lossi"


def temporary_dir() -> Path:
    """Return this machine's folder for temporary files."""
    return Path(tempfile.gettempdir())


def load() -> Settings:
    """Return the merged settings of site, user and environment.

    Raises
    ------
    InvalidInput
        When a file or variable is not valid; names the file and the key.
    """
    stamp = tuple((str(p), _mtime(p)) for p in (site_file(), config_dir() / "settings.yml"))
    variables = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("LOSSI_")))
    return _load(stamp, variables)


@functools.lru_cache(maxsize=4)
def _load(stamp: tuple[tuple[str, int], ...], variables: tuple[tuple[str, str], ...]) -> Settings:
    site, user = (_read(Path(path)) if mtime else {} for path, mtime in stamp)
    merged = {**site, **user}
    environment = {}
    for name in Settings.model_fields:
        value = dict(variables).get(f"LOSSI_{name.upper()}")
        if value is not None:
            environment[name] = value.split(":") if name in ("catalogs", "roots", "quota_files", "shared_projects") else value
    merged.update(environment)
    source = " or ".join(path for path, mtime in stamp if mtime) or "environment"
    settings = _validated(merged, source)
    if site:
        limits = _validated(site, stamp[0][0])
        capped = {name: min(getattr(settings, name), getattr(limits, name)) for name in LIMITS if name in site}
        if limits.allow_local_scheduler is False:
            capped["allow_local_scheduler"] = False
        settings = settings.model_copy(update=capped)
    return settings


def _validated(values: dict[str, Any], source: str) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"setting {key!r} is not valid", why=first["msg"], hint=f"correct it in {source}") from None


def _mtime(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        data = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise InvalidInput(f"cannot read {path}", why=str(error), hint="correct the file or its permissions") from None
    if not isinstance(data, dict):
        if data is None:
            return {}
        raise InvalidInput(f"{path} is not a mapping of settings", hint="write `name: value` lines")
    # The site file also has sections that other rooms own.
    return {key: value for key, value in data.items() if key not in ("environments", "clusters", "default_cluster")}
