"""The command that starts an environment: argv and environment variables.

argv lists only, never a shell. A container sees only the image, the folders that the caller binds, and the mounts of the
catalogue. Behaviour of Apptainer, tested with 1.4.5:

- it evaluates values of ``APPTAINERENV_*`` and ``--env`` as shell text without ``--no-eval``;
- ``--bind`` splits at commas and colons and trims spaces; ``--mount`` takes CSV, which can express any path;
- ``--contain`` gives an empty HOME (the passwd one) and /tmp, on disk in ``$APPTAINER_WORKDIR`` if that is set.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lossi.contract.records import ResolvedEnvironment
from lossi.contract.text import CONTROL
from lossi.environments.models import Mount
from lossi.environments.paths import expanded
from lossi.errors import InvalidInput, Unavailable

RUNTIME = "apptainer"

KEPT = frozenset(
    [
        "HOME",
        "PATH",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TERM",
        "COLORTERM",
        "COLUMNS",
        "LINES",
        "NO_COLOR",
        "TMPDIR",
        "DISPLAY",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "FTP_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "ftp_proxy",
        "all_proxy",
        "no_proxy",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "CURL_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
        "LD_LIBRARY_PATH",
        "GPU_DEVICE_ORDINAL",
        "APPTAINER_CACHEDIR",
        "APPTAINER_TMPDIR",
        "APPTAINER_CONFIGDIR",
        "SINGULARITY_CACHEDIR",
        "SINGULARITY_TMPDIR",
    ]
)
KEPT_PREFIXES = (
    "LC_",
    "XDG_",
    "SLURM_",
    "LOSSI_",
    "MLFLOW_",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "CUDA_",
    "NVIDIA_",
    "ROCR_",
    "HIP_",
    "HSA_",
)
"""Variables of the caller that a task may see. Everything else is removed: secrets of the portal (SECRET_KEY_BASE), start-up
hooks of languages (PYTHON*, RUBYOPT, BUNDLE_*, LD_PRELOAD), and APPTAINER_BIND and the like, which would add mounts."""

INTO_CONTAINERS = (
    "LC_",
    "SLURM_",
    "LOSSI_",
    "MLFLOW_",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "CUDA_VISIBLE_",
    "NVIDIA_",
    "ROCR_",
    "HIP_",
    "HSA_",
)
_INTO_CONTAINERS_BY_NAME = frozenset(name for name in KEPT if name.lower().endswith("_proxy")) | {
    "TZ",
    "TERM",
    "COLORTERM",
    "NO_COLOR",
    "GPU_DEVICE_ORDINAL",
}

_SECRET = re.compile(r"SLURM_JWT|LOSSI_\w*(TOKEN|SECRET)|MLFLOW_\w*SERVER_SECRET")
_SAFE_PATH = re.compile(r"/[A-Za-z0-9_./@%+=~-]*")


def command(
    resolved: ResolvedEnvironment, argv: Sequence[str], *, binds: Iterable[str | Path | Mount] = (), cwd: str | Path | None = None
) -> list[str]:
    """Return the complete argv that runs ``argv`` in an environment.

    Parameters
    ----------
    resolved
        The environment.
    argv
        Program and arguments; in a local environment ``python`` and ``python3`` are the environment's.
    binds
        Folders that a container sees at the same path, in addition to the catalogue's; a local environment sees all folders.
    cwd
        Working directory in the container. For a local environment set it when starting the process.

    Raises
    ------
    InvalidInput
        When there is no program, it starts with ``-``, or an argument or path is not possible.
    """
    arguments = [os.fspath(argument) for argument in argv]
    if not arguments or not arguments[0]:
        raise InvalidInput(
            "there is no command to run", hint="write it after `--`, for example `lossi exec sklearn -- python -V`"
        )
    if arguments[0].startswith("-"):
        raise InvalidInput(
            f"the command starts with {arguments[0][:40]!r}",
            why="a program's name cannot start with -",
            hint="write the program first",
        )
    if any("\0" in argument for argument in arguments):
        raise InvalidInput("an argument contains a NUL byte", hint="remove it: no program can receive one")
    if resolved.kind == "local":
        return [resolved.python, *arguments[1:]] if arguments[0] in ("python", "python3") else arguments
    at = image_position(resolved)
    options = [option for path in binds for option in bind_options(path)]
    if cwd is not None:
        options += ["--pwd", checked_path(os.fspath(cwd))]
    return [*resolved.prefix[:at], *options, *resolved.prefix[at:], *arguments]


def image_position(resolved: ResolvedEnvironment) -> int:
    """Return the index of the image in ``prefix``; options go before it."""
    return resolved.prefix.index(resolved.sif or reference(resolved.image or "", resolved.digest or ""))


def container_prefix(
    image: str,
    *,
    accelerator: str,
    mounts: Iterable[Mount] = (),
    variables: Mapping[str, str] | None = None,
    as_root: bool | None = None,
) -> list[str]:
    """Return the argv that starts a container of ``image`` (a path or ``docker://…@sha256:…``) with Apptainer."""
    options = ["--cleanenv", "--contain", "--no-eval"]
    if os.geteuid() == 0 if as_root is None else as_root:
        options.append("--userns")
    options += {"cuda": ["--nv"], "rocm": ["--rocm"]}.get(accelerator, [])
    options += ["--env", "PYTHONNOUSERSITE=1", "--env", "LANG=C.UTF-8"]
    options += [option for mount in mounts for option in bind_options(mount)]
    # Through env(1) and not --env, which splits at commas and drops quotes.
    inside = ["env", *(f"{name}={value}" for name, value in sorted(variables.items()))] if variables else []
    return [RUNTIME, "exec", *options, image, *inside]


def reference(image: str, digest: str) -> str:
    """Return the pinned reference of an image; Apptainer refuses a tag with a digest."""
    return f"docker://{re.sub(r':[A-Za-z0-9_][A-Za-z0-9._-]*$', '', image)}@{digest}"


def bind(source: str | Path, *, target: str | None = None, read_only: bool = False) -> Mount:
    """Return a bind for `command`, which checks the path."""
    return Mount.model_construct(source=os.fspath(source), target=target, read_only=read_only)


def bind_options(path: str | Path | Mount) -> list[str]:
    """Return the options that bind one folder.

    Raises
    ------
    InvalidInput
        When the path is not absolute or contains a control character.
    """
    mount = path if isinstance(path, Mount) else bind(path)
    source = checked_path(_home(mount.source))
    target = checked_path(_home(mount.target or mount.source))
    if _SAFE_PATH.fullmatch(source) and _SAFE_PATH.fullmatch(target):
        return ["--bind", f"{source}:{target}:ro" if mount.read_only else f"{source}:{target}"]
    fields = ["type=bind", _csv(f"source={source}"), _csv(f"destination={target}"), *(["ro"] if mount.read_only else [])]
    return ["--mount", ",".join(fields)]


def _home(path: str) -> str:
    return str(expanded(path)) if path.startswith("~") else path


def _csv(field: str) -> str:
    return '"' + field.replace('"', '""') + '"'


def checked_path(path: str) -> str:
    """Return ``path`` if it can be used in a container.

    Raises
    ------
    InvalidInput
        When it is not absolute or contains a control character.
    """
    if not path.startswith("/"):
        raise InvalidInput(f"{path[:200]!r} is not an absolute path", hint="containers need absolute paths")
    if CONTROL.search(path):
        raise InvalidInput(
            f"the path {path[:200]!r} cannot be used in a container",
            why="it contains a line break or another control character",
            hint="rename the folder, or use an environment with a local Python",
        )
    return path


def clean_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of ``environment`` that a task may see."""
    return {
        name: value
        for name, value in environment.items()
        if (name in KEPT or name.startswith(KEPT_PREFIXES)) and not _SECRET.match(name)
    }


def clean_environment(resolved: ResolvedEnvironment, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment variables for `command`'s argv.

    Parameters
    ----------
    resolved
        The environment.
    extra
        More variables for the payload; they win. A container gets its variables as ``APPTAINERENV_*``, byte for byte
        (``--no-eval``).
    """
    kept = clean_variables(os.environ)
    extra = dict(extra or {})
    if resolved.kind == "local":
        folder = Path(resolved.python).parent
        path = kept.get("PATH") or os.defpath
        kept["PATH"] = path if path.split(":")[0] == str(folder) else f"{folder}:{path}"
        if (folder.parent / "pyvenv.cfg").exists():
            kept["VIRTUAL_ENV"] = str(folder.parent)
        return {**kept, **resolved.variables, "PYTHONNOUSERSITE": "1", **extra}
    inside = {name: value for name, value in kept.items() if name.startswith(INTO_CONTAINERS) or name in _INTO_CONTAINERS_BY_NAME}
    inside.update(extra)
    return {**kept, **extra, **{f"APPTAINERENV_{name}": value for name, value in inside.items() if "." not in name}}


def runtime(path: str | None = None) -> str:
    """Return the path of the container runtime on this machine.

    Raises
    ------
    Unavailable
        When there is none on PATH.
    """
    program = shutil.which(RUNTIME, path=path)
    if program:
        return program
    raise Unavailable(
        "there is no Apptainer on this machine",
        why=f"{RUNTIME!r} is not on PATH",
        hint="load its module, ask an administrator to install it, use a compute node, or use an environment with a local Python",
    )
