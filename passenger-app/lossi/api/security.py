"""Who may enter and from where: the doors of the web application, cross-site protection and the headers of every answer.

Two doors. *portal*: Open OnDemand has authenticated the user and the process is that user, so only cross-site requests are
a danger. *token*: ``lossi serve`` on 127.0.0.1, whose port every other user of the machine reaches, so each request needs
the token (programs) or the cookie that a one-time code was exchanged for (browsers).
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
class Door:
    """How requests are let in.

    Attributes
    ----------
    token
        The secret of the stand-alone server; None inside the portal.
    secret
        Key that signs the session cookie.
    cookie
        Name of the session cookie.
    """

    secret: str
    token: str | None = None
    cookie: str = "lossi_session"


def portal_door() -> Door:
    """Return the door inside Open OnDemand.

    The key is derived from the per-user SECRET_KEY_BASE that all apps of the portal get (from a file of the user's own where there
    is none), and together with the cookie's name from where the app is mounted: the portal widens the path of every cookie to
    ``/pun``, so that the apps see each other's.
    """
    mounted = os.environ.get("PASSENGER_BASE_URI", "").strip("/")
    base = os.environ.get("SECRET_KEY_BASE") or (
        _kept(settings.state_dir() / "portal" / "secret") if mounted else secrets.token_hex(32)
    )
    secret = hmac.new(base.encode("utf-8", "surrogateescape"), b"lossi session " + mounted.encode(), hashlib.sha256).hexdigest()
    name = "_".join(re.findall(r"[A-Za-z0-9]+", mounted.removeprefix("pun/")))
    return Door(secret=secret, cookie=f"lossi_session_{name}" if name else "lossi_session")


def token_door() -> Door:
    """Return the door of ``lossi serve``: its token lies in a file that only the user can read."""
    token = _kept(token_file())
    return Door(secret=hashlib.sha256(b"session:" + token.encode()).hexdigest(), token=token)


def token_file() -> Path:
    """Return where the token of ``lossi serve`` lies."""
    return settings.state_dir() / "serve" / "token"


def _kept(path: Path) -> str:
    """Return the secret in a file that only the user can read, made if it is not there."""
    secret = path.read_text("ascii").strip() if path.exists() else ""
    if len(secret) < 32:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic.write(path, secrets.token_urlsafe(32).encode() + b"\n", mode=0o600)
        secret = path.read_text("ascii").strip()
    return secret


def new_code() -> str:
    """Make a one-time code that a browser exchanges for a cookie within ten minutes."""
    code = secrets.token_urlsafe(24)
    token_file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic.write(_code_file(code), b"", mode=0o600)
    return code


def use_code(code: str) -> bool:
    """Use up a one-time code; True for the one caller who got it in time."""
    path = _code_file(code)
    try:
        age = time.time() - path.stat().st_mtime
        path.unlink()
    except OSError:
        return False
    return age <= CODE_LIFETIME_S


def _code_file(code: str) -> Path:
    # The name is a digest, so that a listing of the folder gives no code away.
    return token_file().parent / f"code-{hashlib.sha256(code.encode()).hexdigest()}"


class _Session(SecureCookieSessionInterface):
    """The session cookie belongs to where the app is mounted, not to the whole host, and goes over https where that is there."""

    def get_cookie_path(self, app: Flask) -> str:
        return request.script_root + "/"

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def register(app: Flask, door: Door) -> None:
    """Put the door, cross-site protection and response headers around every request of ``app``."""
    app.secret_key = door.secret
    app.session_interface = _Session()
    app.config.update(
        SESSION_COOKIE_NAME=door.cookie,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax" if door.token is None else "Strict",
    )

    @app.before_request
    def enter() -> Response | None:
        if door.token is not None:
            refused = _through_token_door(app, door.token)
            if refused is not None:
                return refused
        if request.method not in SAFE_METHODS:
            return _cross_site(door)
        return None

    @app.after_request
    def guard(response: Response) -> Response:
        headers = response.headers
        headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Referrer-Policy", "same-origin")
        headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        if "Cache-Control" not in headers:
            headers["Cache-Control"] = "private, no-cache"
        return response


def csrf_token() -> str:
    """Return the token that this browser session must send with writes, making one if needed."""
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(24)
    return str(session["csrf"])


def _through_token_door(app: Flask, token: str) -> Response | None:
    if (urlsplit(f"//{request.host}").hostname or "") not in ("127.0.0.1", "localhost", "::1"):
        return problems.answer(
            403,
            "forbidden",
            "Not allowed",
            f"this server does not answer for the host name {request.host!r}",
            hint="open it as 127.0.0.1 or localhost (through an ssh tunnel from another machine)",
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
        hint = "a link works once and for ten minutes; print a new one with `lossi serve --link`"
    else:
        hint = f"browsers: open the link that `lossi serve --link` prints; programs: send `Authorization: Bearer …` with the token from {token_file()}"
    response = problems.answer(
        401, "not-authenticated", "Please prove who you are", "this server answers its owner only", hint=hint
    )
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _bearer(sent: Request, token: str) -> bool:
    kind, _, value = sent.headers.get("Authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(value.strip().encode(), token.encode())


def _cross_site(door: Door) -> Response | None:
    """Refuse a write that another site's page could have made with the user's cookie."""
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
    if door.token is not None and _bearer(request, door.token):
        return None
    if not hmac.compare_digest(request.headers.get("X-CSRF-Token", "").encode(), str(session.get("csrf", "")).encode() or b"-"):
        return problems.answer(
            403,
            "csrf",
            "Not allowed",
            "the CSRF token is missing or old",
            hint="get one from GET /api/v1/session and send it as X-CSRF-Token",
        )
    return None
