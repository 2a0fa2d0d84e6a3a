"""One request to slurmrestd over TCP or a Unix socket, and its answer as JSON.

No redirects, no proxy of the environment, one connection per request. An answer is read within the cluster's deadline and up
to a size.
"""

from __future__ import annotations

import functools
import json
import pwd
import ssl
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossi import units
from lossi.clusters import Cluster, RestSettings
from lossi.contract.text import printable
from lossi.errors import Forbidden, InvalidInput, Unavailable
from lossi.jobs.schedulers.slurm.rest.token import Token

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 256 * 2**20
"""Maximum size of an answer: slurmrestd sends 3 to 8 KB for each job, and everybody's."""
Query = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Call:
    """A request to slurmrestd."""

    path: str
    query: Query = field(default_factory=dict)
    method: str = "GET"
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Answer:
    """An answer: a document, or its plain text if it is not one."""

    status: int
    document: Mapping[str, Any]
    text: str = ""


class Transport:
    """Connections to one slurmrestd.

    Parameters
    ----------
    cluster
        With its `RestSettings`.
    uid
        The user; the socket must belong to this user or root.

    Raises
    ------
    InvalidInput
        If the cluster does not say where slurmrestd is.
    """

    def __init__(self, cluster: Cluster, uid: int) -> None:
        rest = cluster.rest
        if rest is None or (rest.url is None) == (rest.socket is None):
            raise InvalidInput(
                f"cluster {cluster.name!r} does not say how to reach slurmrestd", hint="set either rest.url or rest.socket"
            )
        self._deadline_s = cluster.deadline_s
        self._uid = uid
        self.user = _name_of(uid)
        self._settings = rest
        self._socket = _socket_of(rest, self.user)
        self._token = Token(cluster, rest, uid)
        self.place = str(self._socket) if self._socket else str(rest.url).rstrip("/")
        """The server's address, for messages and as a key."""

    def ask(self, call: Call) -> Answer:
        """Send a request, once more with another token if the first one was refused and there can be another.

        Raises
        ------
        Unavailable
            If no valid answer came in time.
        Forbidden
            If slurmrestd rejects the token, or the socket is another user's.
        """
        answer = self._once(call)
        if answer.status == 401 and self._token.renewable:
            self._token.forget()
            answer = self._once(call)
        if answer.status == 401:
            raise Forbidden("slurmrestd rejects the token", why=answer.text or "Authentication failure", hint="get a new token")
        return answer

    def _once(self, call: Call) -> Answer:
        import httpx

        token = self._token.get()
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "lossi"}
        if token:
            headers |= {"X-SLURM-USER-NAME": self.user, "X-SLURM-USER-TOKEN": token}
        end = time.monotonic() + self._deadline_s
        try:
            with (
                self._client() as client,
                client.stream(call.method, call.path, params=_pairs(call.query), json=call.body, headers=headers) as response,
            ):
                return _answer(response, _read(response, end, self._deadline_s), token)
        except httpx.HTTPError as error:
            # Its text has hosts and reasons, never headers; the chain is cut because its objects contain the request.
            raise Unavailable(
                "slurmrestd does not answer", why=_reason(error, self._deadline_s), hint="try again in a minute"
            ) from None

    def _client(self) -> httpx.Client:
        import httpx

        if self._socket is not None:
            _check_socket(self._socket, self._uid)
            way = httpx.HTTPTransport(uds=str(self._socket), trust_env=False)
        else:
            way = httpx.HTTPTransport(verify=_tls() if self.place.startswith("https:") else False, trust_env=False)
        base = "http://localhost" if self._socket is not None else self.place
        return httpx.Client(transport=way, base_url=base, timeout=self._deadline_s, follow_redirects=False, trust_env=False)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _socket_of(rest: RestSettings, user: str) -> Path | None:
    return None if rest.socket is None else Path(str(rest.socket).replace("{user}", user)).expanduser()


def _check_socket(path: Path, uid: int) -> None:
    """Refuse a socket that another user could have put there: its owner sees all requests."""
    try:
        status, folder = path.stat(), path.parent.stat()
    except OSError as error:
        raise Unavailable("slurmrestd does not answer", why=f"{path}: {error.strerror}", hint="try again in a minute") from None
    trusted = (0, uid)
    safe = folder.st_uid in trusted and (not folder.st_mode & 0o022 or folder.st_mode & stat.S_ISVTX)
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid not in trusted or not safe:
        raise Forbidden(
            f"the socket {path} is not used",
            why="it is not yours or root's, or somebody else could replace it",
            hint="ask the site",
        )


@functools.lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # the system's authorities, including the site's own


def _pairs(query: Query) -> list[tuple[str, str | int | float | bool | None]]:
    return [(name, item) for name, value in query.items() for item in ([value] if isinstance(value, str) else value)]


def _read(response: httpx.Response, end: float, deadline_s: float) -> bytes:
    content = bytearray()
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > MOST_BYTES:
            raise Unavailable(
                "slurmrestd's answer is too large",
                why=f"more than {units.humanize_size(MOST_BYTES)}",
                hint="use slurm_cli for this cluster",
            )
        if time.monotonic() > end:
            raise Unavailable(
                "slurmrestd does not answer", why=f"no complete answer within {deadline_s:g} s", hint="try again in a minute"
            )
    return bytes(content)


def _answer(response: httpx.Response, content: bytes, token: str) -> Answer:
    if response.is_redirect:
        raise Unavailable("slurmrestd does not answer", why="it sent a redirect", hint="correct rest.url")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        return Answer(response.status_code, document)
    text = content[:300].decode("utf-8", errors="replace")
    plain = printable(text).strip()
    return Answer(response.status_code, {}, plain.replace(token, "…") if token else plain)


def _reason(error: httpx.HTTPError, deadline_s: float) -> str:
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {deadline_s:g} s"
    return str(error) or type(error).__name__
