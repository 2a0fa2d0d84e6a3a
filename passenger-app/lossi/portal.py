"""The portal inside Open OnDemand: the web application as Passenger mounts it under ``/pun/sys/lossi`` or ``/pun/dev/lossi``.

Passenger runs one process per user, as that user, and hands it one request at a time; it ends the process when nobody asks
for five minutes. So nothing lives in memory alone, and whoever asks is the process's own user.
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
    """Return the WSGI application that ``passenger_wsgi.py`` hands to Passenger.

    Parameters
    ----------
    folder
        The portal's own, as it is called: the apps for sessions may lie beside it.
    """
    from werkzeug.middleware.proxy_fix import ProxyFix

    app = create_app(security.portal_mode())
    app.config[session_apps.SETTING] = session_apps.installed(Path(folder))
    # Apache speaks https to the browser and http to us. The host name is already the portal's; no other header is trusted.
    return _Mounted(ProxyFix(app.wsgi_app, x_for=0, x_proto=1, x_host=0))


class _Mounted:
    """Sends the address without its trailing slash to the one with it, below which everything lies."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        mount = quote(environ.get("SCRIPT_NAME", "").encode("latin-1"))
        # Passenger says the same PATH_INFO with and without the slash.
        if not mount or environ.get("REQUEST_URI", "").partition("?")[0] != mount:
            return self._app(environ, start_response)
        target = mount + "/"
        if environ.get("QUERY_STRING"):
            target += "?" + environ["QUERY_STRING"]
        headers: list[tuple[str, Any]] = [("Location", target), ("Content-Length", "0")]
        start_response("308 Permanent Redirect", headers)
        return []
