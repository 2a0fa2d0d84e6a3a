"""Send a user's file from this process, or hand it over to nginx, so that a large one does not block other requests.

nginx opens the path again with the user's own rights and passes on few of our headers, not `Content-Security-Policy`. Files
that it sends are therefore always saved, never shown.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from flask import Response, request
from werkzeug.wsgi import wrap_file

from lossi import settings
from lossi.files import downloads, roots

HANDED_OVER_BYTES = 8 * 2**20
"""For smaller files the hand-over is not worth it."""


def file(descriptor: int, name: str) -> Response:
    """Respond with an open file and close it at the end.

    Parameters
    ----------
    descriptor
        A regular file that was opened below an allowed root.
    name
        Name of the file; a folder part is dropped.
    """
    status = os.fstat(descriptor)
    location = _internal_location()
    if location and status.st_size >= HANDED_OVER_BYTES and (path := _path(descriptor)):
        os.close(descriptor)
        response = Response(headers=downloads.headers(name, saved=True))
        response.headers["X-Accel-Redirect"] = location + quote(os.fsencode(path))
        return response
    stream = os.fdopen(descriptor, "rb")
    response = Response(wrap_file(request.environ, stream), headers=downloads.headers(name), direct_passthrough=True)
    response.call_on_close(stream.close)
    response.content_length = status.st_size
    response.set_etag(f"{status.st_mtime_ns:x}-{status.st_size:x}")
    response.make_conditional(request, accept_ranges=True, complete_length=status.st_size)
    return response


def _internal_location() -> str:
    """Return the location at which nginx finds all files; empty without such an nginx in front of us."""
    location = settings.load().accel_redirect
    if location is not None:
        return location.rstrip("/")
    # Passenger tells its server: in Apache the browser would get the header and no file.
    in_portal = "PASSENGER_BASE_URI" in os.environ and "ONDEMAND_VERSION" in os.environ
    return "/sendfile" if in_portal and str(request.environ.get("SERVER_SOFTWARE", "")).lower().startswith("nginx") else ""


def _path(descriptor: int) -> Path | None:
    """Return the open file's present path without links; None if it is gone or the portal does not allow it."""
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    try:
        same = os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return None
    return path if same and roots.portal_allows(path) else None
