"""What the site file and OOD's ``clusters.d`` say of a Slurm cluster: how to reach it, and what to add to every job. Pure."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from lossi.clusters.fields import FROZEN, AbsolutePath, Host, Line, Name
from lossi.files.document import KeyPath

SlurmScheduler = Literal["slurm_cli", "slurm_rest", "slurm_pyslurm"]
"""One for each client."""
OOD_ADAPTER = "slurm"
"""Open OnDemand's name for it."""
OOD_KEYS: Mapping[str, KeyPath] = {
    "slurm_name": ("job", "cluster"),
    "bin": ("job", "bin"),
    "bin_overrides": ("job", "bin_overrides"),
    "conf": ("job", "conf"),
    "submit_host": ("job", "submit_host"),
    "strict_host_checking": ("job", "strict_host_checking"),
}
"""Member of `SlurmSettings` to its path in ``clusters.d``."""
COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo", "sacctmgr", "srun", "ssh")
"""Keys of `Cluster.bin_overrides`."""
RESERVED_OPTIONS = frozenset((
    "array", "chdir", "dependency", "error", "export", "export-file", "gid", "input", "job-name", "open-mode", "output", "parsable",
    "quiet", "signal", "test-only", "uid", "verbose", "wait", "wrap",
))  # fmt: skip
"""sbatch options that Lossi sets itself: overriding them would break how jobs are found, started or stopped."""


_OPTION = re.compile(r"--([a-z][a-z0-9-]*)(=.*)?")


def _option(value: str) -> str:
    match = _OPTION.fullmatch(value)
    if match is None:
        raise ValueError("must be a long sbatch option, --name or --name=value")
    if match[1] in RESERVED_OPTIONS:
        raise ValueError(f"--{match[1]} is set by Lossi and cannot be set here")
    return value


class RestSettings(BaseModel):
    """How to reach slurmrestd: over a Unix socket as the user, or over TCP with a JSON web token."""

    model_config = FROZEN

    url: Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/[^\s]*)?$")] | None = Field(
        default=None, description="Such as http://slurm.example.org:6820; needs a token."
    )
    socket: AbsolutePath | None = Field(default=None, description="Unix socket; `{user}` becomes the user's name.")
    token_command: tuple[Line, ...] = Field(
        default=(),
        description="Command (argv) that prints SLURM_JWT=… or the token, such as scontrol token lifespan=600; run as the user.",
    )
    token_file: Path | None = Field(default=None, description="File (mode 0600) with the token; `~` is the user's home.")
    version: Annotated[str, Field(pattern=r"^v0\.0\.\d{2}$")] | None = Field(
        default=None, description="API version; unset: the newest that both sides support."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.url is None) == (self.socket is None):
            raise ValueError("needs either url or socket")
        if self.url and not self.token_command and not self.token_file:
            raise ValueError("url needs token_command or token_file: slurmrestd answers nobody without a token")
        return self


class PySlurmSettings(BaseModel):
    """The interpreter with PySlurm."""

    model_config = FROZEN

    python: AbsolutePath = Field(description="Interpreter in which `import pyslurm` works.")
    chroot: AbsolutePath | None = Field(
        default=None, description="Root folder of the interpreter, if it belongs to another system."
    )
    any_version: bool = Field(default=False, description="Use PySlurm even if it was built for another Slurm version.")


class SlurmSettings(BaseModel):
    """The part of a cluster's entry that only Slurm has."""

    model_config = FROZEN

    slurm_name: Name | None = Field(default=None, description="Name for `-M`, if one slurmdbd serves several clusters.")
    bin: AbsolutePath | None = Field(default=None, description="Folder of the Slurm commands; unset: those on PATH.")
    bin_overrides: dict[str, AbsolutePath] = Field(default={}, description="Paths of single commands.")
    conf: AbsolutePath | None = Field(default=None, description="Path of slurm.conf, if not the default.")
    submit_host: Host | None = Field(default=None, description="Host on which to run the commands through ssh.")
    strict_host_checking: bool = Field(default=True, description="Whether ssh refuses hosts with unknown keys.")
    rest: RestSettings | None = Field(default=None, description="How to reach slurmrestd; for `slurm_rest`.")
    pyslurm: PySlurmSettings | None = Field(default=None, description="Where PySlurm is; for `slurm_pyslurm`.")
    gpu_option: Literal["gres", "gpus-per-node"] = Field(default="gres", description="sbatch option that requests GPUs.")
    options: tuple[Annotated[Line, AfterValidator(_option)], ...] = Field(
        default=(), description="Additional sbatch options for every job, such as --hint=nomultithread."
    )

    @model_validator(mode="after")
    def _known_commands(self) -> Self:
        unknown = [name for name in self.bin_overrides if name not in COMMANDS]
        if unknown:
            raise ValueError(f"bin_overrides has unknown command {unknown[0]!r}; known: {', '.join(COMMANDS)}")
        return self

    def check_sections(self, scheduler: str) -> None:
        """Refuse a scheduler whose section is missing.

        Raises
        ------
        ValueError
        """
        if scheduler == "slurm_rest" and self.rest is None:
            raise ValueError("scheduler slurm_rest needs the section rest")
        if scheduler == "slurm_pyslurm" and self.pyslurm is None:
            raise ValueError("scheduler slurm_pyslurm needs the section pyslurm")

    def command(self, name: str) -> str:
        """Return the path of a Slurm command, or its name if it is to be found on PATH."""
        path = self.bin_overrides.get(name) or (self.bin / name if self.bin else None)
        return str(path) if path else name


def on_this_machine() -> bool:
    """Return whether this machine submits to Slurm without any configuration."""
    return shutil.which("sbatch") is not None
