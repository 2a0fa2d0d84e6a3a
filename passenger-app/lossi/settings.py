"""Settings of the site and the user, and the places of Lossi's own files.

Precedence: command-line flag > environment variable > user's file > site's file > the default here; a limit set by the
site cannot be overridden. Lowest layer: imports only `errors`.

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
    """What a site or a user may set; every name can be given as ``LOSSI_<NAME>`` in the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    catalogs: tuple[Path, ...] = Field((), description="Further catalogue files of the site, merged over the shipped one.")
    roots: tuple[Path, ...] = Field(
        (), description="Folders below which projects and files may lie; empty: the home folder, the current project and $TMPDIR."
    )
    quota_files: tuple[Path, ...] = Field(
        (), description="Files in the form of Open OnDemand's `OOD_QUOTA_PATH`, read besides those that it names."
    )
    shared_projects: tuple[Path, ...] = Field((), description="Projects that the site offers to everybody who may read them.")
    allow_local_scheduler: bool | None = Field(
        None, description="Whether jobs may run on this machine; unset: only where no sbatch exists and not inside Open OnDemand."
    )
    local_slots: int | None = Field(
        None, ge=1, le=4096, description="Tasks that the local scheduler runs at once; unset: one per core."
    )
    sif_folder: Path | None = Field(
        None,
        description="Folder of the Apptainer images that `lossi env build` and `pull` make; images are large: not a home folder.",
    )
    cancel_grace_s: float = Field(10.0, ge=0, le=600, description="Seconds between SIGTERM and SIGKILL.")
    untracked_limit_mb: int = Field(50, ge=0, description="Untracked files in a code snapshot, all together, in MiB.")
    output_limit_mb: int = Field(1024, ge=0, description="New files of a task that are collected, in MiB.")
    max_tasks: int = Field(20000, ge=1, le=1_000_000, description="Tasks in one sweep.")
    ingest_budget_s: float = Field(
        0.2, ge=0, description="Time a page may spend on taking in finished results before a child process takes over."
    )
    render_limit_mb: int = Field(2048, ge=64, description="Memory of the child process that renders a notebook, in MiB.")
    render_timeout_s: int = Field(120, ge=1, description="Time limit of that child process.")
    accel_redirect: str | None = Field(
        None,
        pattern="^(|/[A-Za-z0-9._~/-]*)$",
        description="Internal location of nginx that finds every absolute path below it and sends large files; empty: never; "
        "unset: `/sendfile` behind the nginx of Open OnDemand.",
    )
    portal_url: str | None = Field(
        None,
        pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?$",
        description="Address of Open OnDemand as browsers see it, such as `https://ondemand.example.org`: the only pages that sessions "
        "answer; unset: where the form of the session was shown.",
    )
    mlflow_embedded_url: str | None = Field(
        None,
        pattern="^/[A-Za-z0-9._~/-]*$",
        description="Where the app `mlflow-embedded` is mounted, such as `/pun/sys/lossi-mlflow-embedded`: runs link to it; unset: no links.",
    )
    serve_port: int = Field(8477, ge=0, le=65535, description="Port of `lossi serve`; 0 takes any free one.")


LIMITS = ("untracked_limit_mb", "output_limit_mb", "max_tasks", "render_limit_mb", "render_timeout_s")
"""Settings of the site that a user may only lower."""


def site_file() -> Path:
    """Return the path of the site's settings, whether or not it exists."""
    return Path(os.environ.get("LOSSI_SITE") or "/etc/lossi/site.yml")


def config_dir() -> Path:
    """Return the folder of the user's own settings and catalogue."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "lossi"


def state_dir() -> Path:
    """Return the folder of state that must survive: registry of projects, queue of the local scheduler."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "lossi"


def cache_dir() -> Path:
    """Return the folder of what can be made again: rendered notebooks, template stores."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lossi"


def temporary_dir() -> Path:
    """Return the folder for node-local work of this machine."""
    return Path(tempfile.gettempdir())


def load() -> Settings:
    """Return the merged settings of site, user and environment.

    Raises
    ------
    InvalidInput
        When a file or variable does not hold what it should; names the file and the key.
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
        raise InvalidInput(f"{path} is not a mapping of settings", hint="write lines of the form `name: value`")
    # The site file also carries sections that other rooms own.
    return {key: value for key, value in data.items() if key not in ("environments", "clusters", "default_cluster")}
