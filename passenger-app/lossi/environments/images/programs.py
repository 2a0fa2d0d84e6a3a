"""Runs the programs that build and copy images, passes on their lines, and explains their errors.

The patterns match messages of podman 4.3, buildah 1.28, skopeo 1.9 and Apptainer 1.4.5.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from lossi import processes
from lossi.errors import Conflict, Forbidden, InvalidInput, LossiError, NotFound, NotSupported, Unavailable

Say = Callable[[str], None]
"""Called with each line of a program."""

_KEPT_LINES = 40

_MEANINGS: tuple[tuple[str, type[LossiError], str, str], ...] = (
    (
        r"no space left on device|disk quota exceeded",
        Unavailable,
        "there is no room left",
        "set TMPDIR to a local folder with more room (five times the packed image), or free some where images are stored",
    ),
    (
        r"newuidmap|newgidmap|sub[ug]id|insufficient UIDs or GIDs|potentially insufficient",
        Unavailable,
        "this user has no subordinate ids, which building needs",
        "ask an administrator for a line in /etc/subuid and /etc/subgid, or build on a machine where you have one",
    ),
    (
        r"server gave HTTP response to HTTPS client|http: server gave HTTP",
        InvalidInput,
        "the registry uses plain HTTP",
        "pass --insecure if you trust the network in between",
    ),
    (
        r"manifest unknown|name unknown|repository name not known|not found: manifest|manifest.*not found",
        NotFound,
        "the registry has no such image",
        "check the name and the digest",
    ),
    (
        r"unauthorized|authentication required|access to the resource is denied|requested access.*denied|\b403\b",
        Forbidden,
        "the registry requires a login, or does not allow this",
        "log in with `skopeo login REGISTRY` (with Apptainer: `apptainer registry login`)",
    ),
    (
        r"manifest.*does not match|digest did not match|does not match (?:the )?(?:expected|provided) .*digest|digest mismatch|"
        r"corrupt blob",
        Conflict,
        "what the registry sent does not match the digest",
        "do not use it; ask the registry's administrator, or build the image again",
    ),
    (
        r"exec format error|no image found in (?:image index|manifest list) for architecture|image architecture|"
        r"choosing image instance",
        NotSupported,
        "the image is for another architecture",
        "build or pull it on a machine of its architecture, or choose another variant",
    ),
    (
        r"connection refused|no such host|i/o timeout|network is unreachable|no route to host|TLS handshake|x509:|"
        r"pinging container registry|connection reset|server misbehaving|Temporary failure in name resolution",
        Unavailable,
        "the registry does not answer",
        "check its name, and the network, proxy and certificate",
    ),
    (
        r"command not found|unknown flag|unrecognized arguments",
        NotSupported,
        "the program is too old for this",
        "install a newer one",
    ),
)


def run(
    argv: Sequence[str],
    what: str,
    *,
    say: Say | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    accept: Collection[int] = (0,),
) -> None:
    """Run a program to its end.

    Parameters
    ----------
    argv
        Program and arguments.
    what
        What failed if it fails, for the error.
    say
        Called with each line of its output.
    environment
        Variables in addition to those of this process.
    cwd
        Folder in which it runs.
    accept
        Exit codes that count as success.

    Raises
    ------
    LossiError
        By the program's last lines.
    """
    last: deque[str] = deque(maxlen=_KEPT_LINES)
    with _started(argv, what, environment, cwd, subprocess.STDOUT) as child:
        assert child.stdout is not None
        for line in child.stdout:
            for text in filter(None, (part.strip() for part in line.decode("utf-8", "replace").split("\r"))):
                last.append(text)
                if say:
                    say(text)
    if child.returncode not in accept:
        raise explained(what, argv[0], child.returncode, list(last))


def answer(argv: Sequence[str], what: str, *, environment: Mapping[str, str] | None = None) -> bytes:
    """Run a program and return its stdout.

    Raises
    ------
    LossiError
        By its last lines on stderr.
    """
    with _started(argv, what, environment, None, subprocess.PIPE) as child:
        out, err = child.communicate()
    if child.returncode:
        raise explained(what, argv[0], child.returncode, err.decode("utf-8", "replace").splitlines())
    return out


@contextlib.contextmanager
def _started(
    argv: Sequence[str], what: str, environment: Mapping[str, str] | None, cwd: Path | None, stderr: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program that ends with the block, including its children, even on an exception."""
    variables = {**os.environ, **(environment or {})}
    child = processes.running(argv, environment=variables, cwd=cwd, stdout=subprocess.PIPE, stderr=stderr)
    with contextlib.ExitStack() as stack:
        try:
            started = stack.enter_context(child)
        except OSError as error:
            raise Unavailable(what, why=f"{argv[0]}: {error.strerror}", hint="check the installation of this program") from None
        yield started


def explained(what: str, program: str, code: int, output: Sequence[str]) -> LossiError:
    """Return the error that the last lines of a failed program mean."""
    text = "\n".join(output)
    cause = _cause(output) or f"{Path(program).name} exited with {code}"
    for pattern, kind, meaning, hint in _MEANINGS:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(what, why=f"{meaning}: {cause}", hint=hint, output=list(output))
    return Unavailable(what, why=cause, hint="see its last lines; correct that and run it again", output=list(output))


def _cause(output: Sequence[str]) -> str:
    """Return the last line about an error, or else the last line."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in output]
    lines = [line for line in lines if line]
    errors = [line for line in lines if re.match(r"(?:error|fatal|time=)", line, re.IGNORECASE)]
    return (errors or lines or [""])[-1][:600]
