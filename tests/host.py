"""What tests see of the machine they run on: the basic programs of any Linux, and what a test names.

`isolate` replaces the environment of the test session; `tests/conftest.py` then gives each test a home of its own. A test that
needs more of the machine says so: ``@pytest.mark.host("git", "cc")`` puts these programs on its PATH and skips it if one is missing.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ENVIRONMENT = dict(os.environ)
"""As pytest was started."""
PATH = os.pathsep.join(dict.fromkeys([*ENVIRONMENT.get("PATH", os.defpath).split(os.pathsep), "/usr/sbin", "/sbin"]))
BASIC = (
    "awk", "base64", "basename", "bash", "cat", "chgrp", "chmod", "chown", "cmp", "cp", "cut", "dash", "date", "dd", "df", "diff",
    "dirname", "du", "echo", "env", "expr", "false", "find", "flock", "getconf", "getent", "grep", "groups", "gunzip", "gzip", "head",
    "hostname", "id", "install", "kill", "ln", "ls", "md5sum", "mkdir", "mkfifo", "mktemp", "mount", "mv", "nice", "nohup", "nproc",
    "od", "paste", "pgrep", "pkill", "printf", "ps", "pwd", "readlink", "realpath", "rm", "rmdir", "sed", "seq", "setpriv", "setsid",
    "sh", "sha256sum", "sleep", "sort", "split", "stat", "stdbuf", "su", "sync", "tail", "tar", "tee", "test", "timeout", "touch", "tr",
    "true", "truncate", "tty", "umount", "uname", "uniq", "unlink", "unshare", "wc", "which", "whoami", "xargs", "yes",
)  # fmt: skip
"""Programs of packages that every Debian has: coreutils, findutils, grep, gzip, procps, sed, tar, util-linux."""
SLURM = (
    "sacct", "sacctmgr", "salloc", "sbatch", "scancel", "scontrol", "sdiag", "sinfo", "sprio", "squeue", "srun", "sstat",
)  # fmt: skip
KEPT = re.compile(
    r"LOSSI_TEST_|LOSSI_SLURM_VERSIONS$|PIP_|SSL_CERT_|REQUESTS_CA_|(https?|no)_proxy$|OPENBLAS_|PYTEST_|TMPDIR$", re.IGNORECASE
)
"""Variables that reach the tests: settings of the tests themselves, and how package clients reach their registries."""


PATIENCE_S = 300.0
"""How long tests wait for something to happen: far longer than it takes on a busy machine, shorter than pytest's limit."""


def which(program: str) -> str | None:
    """Return the path of a program of this machine."""
    return shutil.which(program, path=PATH)


@cache
def programs(names: Iterable[str]) -> Path:
    """Return a folder with links to these programs, for PATH; those that are missing are left out."""
    folder = Path(tempfile.mkdtemp(prefix="bin-", dir=_place()))
    for name in names:
        if program := which(name):
            (folder / name).symlink_to(program)
    folder.chmod(0o755)
    return folder


def path(names: Iterable[str] = ()) -> str:
    """Return a PATH with the basic programs and these."""
    folders = [programs(BASIC)] + ([programs(tuple(names))] if names else [])
    return os.pathsep.join(map(str, folders))


@cache
def _place() -> Path:
    place = tempfile.TemporaryDirectory(prefix="lossi-tests-")
    _KEPT.append(place)
    folder = Path(place.name)
    folder.chmod(0o755)
    return folder


_KEPT: list[object] = []  # removed when the interpreter ends


def isolate() -> None:
    """Make the environment of this process independent of the machine and of who uses it."""
    home = _place() / "home"
    home.mkdir()
    os.environ.clear()
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if KEPT.match(name)})
    os.environ.update(variables(home), PATH=path())
    os.umask(0o022)
    time.tzset()


def variables(home: Path) -> dict[str, str]:
    """Return the variables of a user with this home folder: locale, time zone, folders, configuration."""
    return {
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "LOSSI_SITE": str(home / "no-site.yml"),
        "OOD_CLUSTERS": str(home / "no-clusters.d"),
        "GIT_CONFIG_NOSYSTEM": "1",
    }
