"""The portal inside Open OnDemand: the web application as Passenger mounts it under ``/pun/sys/lossi`` or ``/pun/dev/lossi``.

Passenger runs one process per user, as that user, passes it one request at a time, and ends it after five idle minutes. So no
state is only in memory, and every request comes from the process's own user.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lossi.api import security, session_apps
from lossi.app import create_app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def create_portal(folder: str) -> WSGIApplication:
    """Return the WSGI application for Passenger.

    Parameters
    ----------
    folder
        The portal's folder, by the path that Passenger uses: the session apps may be next to it.
    """
    from werkzeug.middleware.proxy_fix import ProxyFix

    app = create_app(security.portal_mode())
    app.config[session_apps.SETTING] = session_apps.installed(Path(folder))
    # Apache speaks https to the browser and http to us. The host name is already the portal's; no other header is trusted.
    return _Mounted(ProxyFix(app.wsgi_app, x_for=0, x_proto=1, x_host=0))


class _Mounted:
    """Redirects the app's address without its trailing slash to the one with it."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        mount = quote(environ.get("SCRIPT_NAME", "").encode("latin-1"))
        # PATH_INFO is the same with and without the slash.
        if not mount or environ.get("REQUEST_URI", "").partition("?")[0] != mount:
            return self._app(environ, start_response)
        target = mount + "/"
        if environ.get("QUERY_STRING"):
            target += "?" + environ["QUERY_STRING"]
        headers: list[tuple[str, Any]] = [("Location", target), ("Content-Length", "0")]
        start_response("308 Permanent Redirect", headers)
        return []
