"""The gate in front of a server on a compute node: nobody passes without the session's secret. Standard library only.

Any user of the cluster can reach the port, directly or through the portal's ``/node/HOST/PORT``, and can forge any header but
the one with the secret.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOGIN = "/lossi-login"
"""Address of the card's form, below the base."""
LARGEST_FORM = 4096
LARGEST_DISCARDED = 65536
SHORTEST_SECRET = 22
"""Characters; 128 bits if each is one of 62."""
READS = ("GET", "HEAD", "OPTIONS")
PROGRAM = ("/", "/static-files/")
"""MLflow's own page, and the prefix of its scripts and styles."""
INERT = [
    ("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]
OWN_HEADERS = [
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'self'"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Referrer-Policy", "no-referrer"),
]

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MLflow: password needed</title>
<style>body {{ max-width: 32rem; margin: 3rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif }}</style>
</head>
<body>
<h1>{title}</h1>
<p>{text}</p>
<form method="post" action="{action}">
<p><label>Password of the session: <input type="password" name="secret" autocomplete="off" required></label>
<button type="submit">Open MLflow</button></p>
</form>
</body>
</html>
"""


class SecretGate:
    """Lets requests with the secret through: with the cookie that the form sets, or ``Authorization: Bearer``.

    Parameters
    ----------
    app
        The application behind it; it sees neither the secret nor any cookie.
    secret
        The session's secret.
    base
        Address of the application, such as ``/node/cpu01/23456``.

    Raises
    ------
    ValueError
        If the secret is too short.
    """

    def __init__(self, app: WSGIApplication, secret: str, base: str) -> None:
        if len(secret) < SHORTEST_SECRET:
            raise ValueError("the secret is too short")
        self._app = app
        self._secret = secret.encode()
        self._base = base.rstrip("/")
        # Not the secret itself: a copied cookie is no token for programs.
        self._cookie = hmac.new(self._secret, b"cookie of the browser", hashlib.sha256).hexdigest()
        self._name = f"lossi_mlflow_{hashlib.sha256(self._base.encode()).hexdigest()[:12]}"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        if path == self._base + LOGIN and environ["REQUEST_METHOD"] == "POST":
            return self._log_in(environ, start_response)
        by_token = self._has_token(environ)
        if not by_token and not self._has_cookie(environ):
            return self._refuse(environ, start_response)
        if not by_token and not is_same_origin(environ):
            discard(environ)
            return answer(start_response, "403 Forbidden", b"Pages of other sites may not do this.\n")
        if path == self._base:
            return self._to_base(start_response, "308 Permanent Redirect", [])
        if not path.startswith(self._base + "/"):
            return answer(start_response, "404 Not Found", f"All pages are below {self._base}/\n".encode())
        environ["SCRIPT_NAME"] = self._base
        environ["PATH_INFO"] = path[len(self._base) :]
        forget(environ)
        return self._app(environ, start_response)

    def _log_in(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            length = int(environ.get("CONTENT_LENGTH") or 0)
        except ValueError:
            length = -1
        if not 0 <= length <= LARGEST_FORM:
            discard(environ)
            return answer(start_response, "413 Content Too Large", b"This is not the card's form.\n")
        form = parse_qs(environ["wsgi.input"].read(length).decode("utf-8", "replace"))
        if not is_same(form.get("secret", [""])[0], self._secret.decode()):
            return self._refuse(environ, start_response)
        secure = "; Secure" if environ.get("HTTP_X_FORWARDED_PROTO", "") == "https" else ""
        cookie = f"{self._name}={self._cookie}; Path={self._base or '/'}; HttpOnly; SameSite=Strict{secure}"
        return self._to_base(start_response, "303 See Other", [("Set-Cookie", cookie)])

    def _to_base(self, start_response: StartResponse, status: str, headers: list[tuple[str, str]]) -> Iterable[bytes]:
        start_response(status, [("Location", f"{self._base}/"), ("Content-Length", "0"), *OWN_HEADERS, *headers])
        return []

    def _has_token(self, environ: WSGIEnvironment) -> bool:
        kind, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        return kind.lower() == "bearer" and is_same(token.strip(), self._secret.decode())

    def _has_cookie(self, environ: WSGIEnvironment) -> bool:
        # Parsed by hand: a cookie of another app that Python cannot parse must not hide ours.
        for part in environ.get("HTTP_COOKIE", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self._name and is_same(value, self._cookie):
                return True
        return False

    def _refuse(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        discard(environ)
        if "text/html" not in environ.get("HTTP_ACCEPT", ""):
            return answer(start_response, "403 Forbidden", b"This MLflow belongs to a session: the token is on its card.\n")
        page = PAGE.format(
            title="This MLflow belongs to a session",
            text="Open it with the button on the session's card in Open OnDemand, or enter the password on the card.",
            action=f"{self._base}{LOGIN}",
        )
        return answer(start_response, "403 Forbidden", page.encode(), "text/html; charset=utf-8")


class Inert:
    """Lets only MLflow's own program act as a page of the portal's origin.

    Everything else that MLflow answers, above all artifacts, comes from the author of a run. Opened by its address, it runs no
    scripts and has an origin of its own, whatever its type; a page that fetches it sees no difference.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        path = environ.get("PATH_INFO", "")
        if path == PROGRAM[0] or path.startswith(PROGRAM[1]):
            return self._app(environ, start_response)

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            replaced = {name.lower() for name, _ in INERT}
            others = [(name, value) for name, value in headers if name.lower() not in replaced]
            return start_response(status, [*others, *INERT], *more)

        return self._app(environ, start)


def is_same(text: str, expected: str) -> bool:
    """Compare two texts in constant time."""
    return hmac.compare_digest(text.encode("utf-8", "surrogateescape"), expected.encode())


def is_same_origin(environ: WSGIEnvironment) -> bool:
    """Return whether a browser's request comes from a page of the address that it was sent to.

    Behind the portal that address is in ``X-Forwarded-Host``. A page of another site cannot set that header without a CORS
    preflight, which is refused here.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE", "")
    origin = environ.get("HTTP_ORIGIN", "")
    writes = environ["REQUEST_METHOD"] not in READS
    if writes and site not in ("", "same-origin"):
        return False
    if not origin:
        return not writes or bool(site)
    # Each proxy appends to the header: the last value is ours.
    forwarded = environ.get("HTTP_X_FORWARDED_HOST", "").split(",")[-1].strip()
    host = forwarded or environ.get("HTTP_HOST", "")
    scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").split(",")[-1].strip()
    return origin in ([f"{scheme}://{host}"] if scheme else [f"http://{host}", f"https://{host}"])


def discard(environ: WSGIEnvironment) -> None:
    """Read a short unwanted body: closing a connection with unread data may lose the answer."""
    length = environ.get("CONTENT_LENGTH") or "0"
    if length.isdecimal() and int(length) <= LARGEST_DISCARDED:
        environ["wsgi.input"].read(int(length))


def forget(environ: WSGIEnvironment) -> None:
    """Remove what the app behind must not see: secrets, the portal's cookies, and the origin, which was checked here."""
    for name in ("HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_ORIGIN"):
        environ.pop(name, None)


def answer(start_response: StartResponse, status: str, body: bytes, kind: str = "text/plain; charset=utf-8") -> Iterable[bytes]:
    """Answer with a short text."""
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *OWN_HEADERS])
    return [body]
