"""Sending a file of the user's: from this process, or handed over to nginx, so that a large one keeps nobody waiting.

nginx opens the path anew, with the user's own rights, and passes on few of our headers: `Content-Security-Policy` is not
among them. Files that it sends are therefore always saved, never shown.
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
"""Smaller files are read faster than the hand-over is worth."""


def file(descriptor: int, name: str) -> Response:
    """Answer with an open file, which is closed in the end.

    Parameters
    ----------
    descriptor
        Of a regular file that was opened below a root that the user may name.
    name
        What the file is called; a folder part is dropped.
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
    """Return where nginx finds all files, or nothing where no nginx of that kind is before us."""
    told = settings.load().accel_redirect
    if told is not None:
        return told.rstrip("/")
    # Passenger says which server it is part of; in Apache it would send the header to the browser and no file.
    in_portal = "PASSENGER_BASE_URI" in os.environ and "ONDEMAND_VERSION" in os.environ
    return "/sendfile" if in_portal and str(request.environ.get("SERVER_SOFTWARE", "")).lower().startswith("nginx") else ""


def _path(descriptor: int) -> Path | None:
    """Return where the open file lies now, without links; None if it is gone or the portal's own limit does not allow it."""
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    try:
        same = os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return None
    return path if same and roots.portal_allows(path) else None
