"""Headers for users' files sent to a browser: displayed only if nothing in them can run, downloaded otherwise."""

from __future__ import annotations

import mimetypes
import re
from urllib.parse import quote

SHOWN = {"image/png", "image/jpeg", "image/gif", "image/webp", "application/json"}
"""Types that browsers display without running anything in them: not SVG, HTML or PDF. Text is always sent as text/plain."""

TEXT = {
    ".cfg", ".conf", ".csv", ".ini", ".jl", ".log", ".md", ".out", ".err", ".py", ".r", ".rst", ".sh", ".sql", ".tex",
    ".toml", ".tsv", ".txt", ".yaml", ".yml",
}  # fmt: skip
"""File name extensions that are displayed as plain text."""

ACTIVE = re.compile(r"html|xml|svg|script|mhtml|rfc822|pdf|flash|java", re.IGNORECASE)
"""Types sent as application/octet-stream, so that a downloaded file is not handed to a plug-in."""

MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63}")


def headers(name: str, media_type: str | None = None, *, saved: bool = False) -> dict[str, str]:
    """Return the response headers for a user's file.

    Parameters
    ----------
    name
        The file's name; folders before it are dropped.
    media_type
        Its type, if known; guessed from the name if None.
    saved
        Whether to force a download.

    Returns
    -------
    dict
        ``Content-Type``, ``Content-Disposition`` (RFC 6266, with ``filename*``), ``Content-Security-Policy: sandbox`` and
        ``X-Content-Type-Options: nosniff``: even a displayed file has an opaque origin and runs nothing.
    """
    base = name.replace("\\", "/").rsplit("/", 1)[-1] or "download"
    ending = "." + base.rsplit(".", 1)[-1].lower() if "." in base else ""
    kind = media_type or mimetypes.guess_type(base)[0] or ""
    if kind in SHOWN:
        sent, way = kind, "inline"
    elif (media_type is None and ending in TEXT) or kind == "text/plain":
        sent, way = "text/plain; charset=utf-8", "inline"
    else:
        sent, way = kind if MEDIA_TYPE.fullmatch(kind) and not ACTIVE.search(kind) else "application/octet-stream", "attachment"
    if saved:
        way = "attachment"
    return {
        "Content-Type": sent,
        "Content-Disposition": f"{way}; {_filename(base)}",
        "Content-Security-Policy": "sandbox; default-src 'none'; img-src 'self'; style-src 'unsafe-inline'",
        "X-Content-Type-Options": "nosniff",
    }


def _filename(name: str) -> str:
    """Return the parameters of RFC 6266: a safe ASCII name, and the exact name percent-encoded (RFC 8187)."""
    # File names can contain anything but `/` and NUL: line breaks would split the header, `%` confuses old browsers.
    plain = re.sub(r"[^A-Za-z0-9 ._()+,=@~-]", "_", name)
    exact = quote(name.encode("utf-8", "surrogateescape"), safe="!#$&+-.^_`|~")
    return f"filename=\"{plain}\"; filename*=UTF-8''{exact}"
