"""Headers for files of users that a browser gets: shown only where nothing in them can act, saved otherwise."""

from __future__ import annotations

import mimetypes
import re
from urllib.parse import quote

SHOWN = {"image/png", "image/jpeg", "image/gif", "image/webp", "application/json"}
"""Types that browsers show without running anything in them. Not SVG, HTML or PDF; text is always sent as text/plain."""

TEXT = {
    ".cfg", ".conf", ".csv", ".ini", ".jl", ".log", ".md", ".out", ".err", ".py", ".r", ".rst", ".sh", ".sql", ".tex",
    ".toml", ".tsv", ".txt", ".yaml", ".yml",
}  # fmt: skip
"""Endings of files that are shown as plain text."""

ACTIVE = re.compile(r"html|xml|svg|script|mhtml|rfc822|pdf|flash|java", re.IGNORECASE)
"""Types whose name is not even sent: a saved file with a neutral type cannot be handed to a plug-in."""

MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63}")


def headers(name: str, media_type: str | None = None, *, saved: bool = False) -> dict[str, str]:
    """Return the headers with which a file of a user is sent.

    Parameters
    ----------
    name
        The file's name; a folder part is dropped.
    media_type
        What it is known to be; guessed from the name if None.
    saved
        Never to be shown, whatever it is.

    Returns
    -------
    dict
        ``Content-Type``, ``Content-Disposition`` (RFC 6266, with ``filename*``), ``Content-Security-Policy: sandbox`` and
        ``X-Content-Type-Options: nosniff``: even what is shown has an origin of its own and may run nothing.
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
    """Return the parameters of RFC 6266: a harmless ASCII name, and the exact one percent-encoded (RFC 8187)."""
    # A file's name can hold anything but `/` and NUL: line breaks would split the header, `%` confuses old browsers.
    plain = re.sub(r"[^A-Za-z0-9 ._()+,=@~-]", "_", name)
    exact = quote(name.encode("utf-8", "surrogateescape"), safe="!#$&+-.^_`|~")
    return f"filename=\"{plain}\"; filename*=UTF-8''{exact}"
