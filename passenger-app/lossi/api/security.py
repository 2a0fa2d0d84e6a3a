"""Authentication of requests, cross-site protection and the headers of every response.

Two auth modes. *portal*: Open OnDemand has authenticated the user and the process runs as that user, so only cross-site
requests are a danger. *token*: ``lossi serve`` on 127.0.0.1, where every user of the machine can connect, so each request
needs the token (programs) or a cookie, which a browser gets for a one-time code.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from flask import Flask, Request, Response, redirect, request, session
from flask.sessions import SecureCookieSessionInterface

from lossi import settings
from lossi.api import problems
from lossi.files import atomic

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
CODE_LIFETIME_S = 600
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; "
    "frame-src 'self'; frame-ancestors 'self'; form-action 'self'; base-uri 'none'"
)


@dataclass(frozen=True)
class AuthMode:
    """How requests are authenticated.

    Attributes
    ----------
    secret
        Key that signs the session cookie.
    token
        The secret of the stand-alone server; None inside the portal.
    cookie
        Name of the session cookie.
    """

    secret: str
    token: str | None = None
    cookie: str = "lossi_session"


def portal_mode() -> AuthMode:
    """Return the auth mode inside Open OnDemand.

    The key is derived from the user's SECRET_KEY_BASE, which all apps of the portal get (without it, from a private file), and
    from where the app is mounted, as is the cookie's name: the portal widens the path of every cookie to ``/pun``, so apps see
    each other's cookies.
    """
    mounted = os.environ.get("PASSENGER_BASE_URI", "").strip("/")
    base = os.environ.get("SECRET_KEY_BASE") or (
        _stored_secret(settings.state_dir() / "portal" / "secret") if mounted else secrets.token_hex(32)
    )
    secret = hmac.new(base.encode("utf-8", "surrogateescape"), b"lossi session " + mounted.encode(), hashlib.sha256).hexdigest()
    name = "_".join(re.findall(r"[A-Za-z0-9]+", mounted.removeprefix("pun/")))
    return AuthMode(secret=secret, cookie=f"lossi_session_{name}" if name else "lossi_session")


def token_mode() -> AuthMode:
    """Return the auth mode of ``lossi serve``, whose token is in a file that only the user can read."""
    token = _stored_secret(token_file())
    return AuthMode(secret=hashlib.sha256(b"session:" + token.encode()).hexdigest(), token=token)


def token_file() -> Path:
    """Return the path of the token of ``lossi serve``."""
    return settings.state_dir() / "serve" / "token"


def _stored_secret(path: Path) -> str:
    """Return the secret in a file that only the user can read; create it if it is missing."""
    secret = path.read_text("ascii").strip() if path.exists() else ""
    if len(secret) < 32:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic.write(path, secrets.token_urlsafe(32).encode() + b"\n", mode=0o600)
        secret = path.read_text("ascii").strip()
    return secret


def new_code() -> str:
    """Return a new one-time code that a browser exchanges for a cookie within ten minutes."""
    code = secrets.token_urlsafe(24)
    token_file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic.write(_code_file(code), b"", mode=0o600)
    return code


def use_code(code: str) -> bool:
    """Use up a one-time code; True if it was valid."""
    path = _code_file(code)
    try:
        age = time.time() - path.stat().st_mtime
        path.unlink()
    except OSError:
        return False
    return age <= CODE_LIFETIME_S


def _code_file(code: str) -> Path:
    # The name is a digest: a listing of the folder must not show the code.
    return token_file().parent / f"code-{hashlib.sha256(code.encode()).hexdigest()}"


class _Session(SecureCookieSessionInterface):
    """The session cookie is limited to the app's path, and to https if the request uses it."""

    def get_cookie_path(self, app: Flask) -> str:
        return request.script_root + "/"

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def register(app: Flask, auth: AuthMode) -> None:
    """Add authentication, cross-site protection and response headers to every request of ``app``."""
    app.secret_key = auth.secret
    app.session_interface = _Session()
    app.config.update(
        SESSION_COOKIE_NAME=auth.cookie,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax" if auth.token is None else "Strict",
    )

    @app.before_request
    def authenticate() -> Response | None:
        if auth.token is not None:
            refused = _check_token(app, auth.token)
            if refused is not None:
                return refused
        if request.method not in SAFE_METHODS:
            return _check_write(auth)
        return None

    @app.after_request
    def add_headers(response: Response) -> Response:
        headers = response.headers
        headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Referrer-Policy", "same-origin")
        headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        if "Cache-Control" not in headers:
            headers["Cache-Control"] = "private, no-cache"
        return response


def csrf_token() -> str:
    """Return the token that this browser session must send with writes; create it if needed."""
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(24)
    return str(session["csrf"])


def _check_token(app: Flask, token: str) -> Response | None:
    if (urlsplit(f"//{request.host}").hostname or "") not in ("127.0.0.1", "localhost", "::1"):
        return problems.answer(
            403,
            "forbidden",
            "Not allowed",
            f"this server does not accept the host name {request.host!r}",
            hint="use 127.0.0.1 or localhost (from another machine, through an ssh tunnel)",
        )
    if request.endpoint == "static":
        return None
    if _bearer(request, token) or session.get("entered"):
        return None
    code = request.args.get("code", "")
    if request.endpoint == "pages.start" and code:
        if use_code(code):
            session["entered"] = True
            session.permanent = False
            target = request.script_root + "/"
            return redirect(target, 303)  # type: ignore[return-value]
        hint = "a link works once, within ten minutes; print a new one with `lossi serve --link`"
    else:
        hint = f"browsers: open the link that `lossi serve --link` prints; programs: send `Authorization: Bearer …` with the token from {token_file()}"
    response = problems.answer(
        401, "not-authenticated", "Authentication required", "this server answers its owner only", hint=hint
    )
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _bearer(sent: Request, token: str) -> bool:
    kind, _, value = sent.headers.get("Authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(value.strip().encode(), token.encode())


def _check_write(auth: AuthMode) -> Response | None:
    """Refuse a write that a page of another site could have sent with the user's cookie."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return problems.answer(403, "forbidden", "Not allowed", "writes from pages of other sites are refused")
    if request.mimetype != "application/json" and (request.content_length or request.method != "DELETE"):
        return problems.answer(
            415,
            "http-error",
            "Unsupported Media Type",
            "writes need Content-Type: application/json",
            hint="send the body as JSON",
        )
    if auth.token is not None and _bearer(request, auth.token):
        return None
    if not hmac.compare_digest(request.headers.get("X-CSRF-Token", "").encode(), str(session.get("csrf", "")).encode() or b"-"):
        return problems.answer(
            403,
            "csrf",
            "Not allowed",
            "the CSRF token is missing or expired",
            hint="get one from GET /api/v1/session and send it as X-CSRF-Token",
        )
    return None
