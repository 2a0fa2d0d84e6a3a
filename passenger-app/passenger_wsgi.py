"""What Passenger loads: the portal, or a page that says why it cannot start.

The oldest Python that a portal host may have must be able to read this file: no syntax later than Python 3.6, and nothing but
the standard library until the environment has been found good.
"""

import html
import json
import os
import re
import sys
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
OLDEST = (3, 11)


class CannotStart(Exception):
    """Why there is no portal, and what the site's administrators can do about it."""

    def __init__(self, why, remedy):
        Exception.__init__(self, why)
        self.why = why
        self.remedy = remedy


def portal():
    """Return the portal's WSGI application.

    Raises
    ------
    CannotStart
    """
    chosen = environment()
    if chosen and not os.access(chosen, os.X_OK):
        raise CannotStart(
            f"the environment beside the app is named {chosen}, which is missing or which you may not run",
            "run `lossi install` again, or let everybody read and run that environment",
        )
    if sys.version_info < OLDEST:
        raise CannotStart(
            "{} is Python {}.{}, Lossi needs {}.{} or later".format(sys.executable, *sys.version_info[:2], *OLDEST),
            "run `lossi install` with a newer Python: it makes an environment beside the app",
        )
    try:
        from lossi.portal import create_portal
    except ImportError as error:
        traceback.print_exc()
        raise CannotStart(
            f"{sys.executable}: {error}",
            "run `lossi install` again: it makes a complete environment beside the app"
            if chosen
            else "there is no environment beside the app: run `lossi install`, which makes one",
        ) from None
    return create_portal(HERE)


def environment():
    """Return the interpreter that ``bin/python`` looks for first, or None where nothing beside the app names one."""
    try:
        with open(os.path.join(HERE, "environment"), encoding="utf-8", errors="surrogateescape") as named:
            return os.path.join(HERE, named.readline().rstrip("\n"))
    except OSError:
        folder = os.path.join(HERE, "venv")
        return os.path.join(folder, "bin", "python") if os.path.lexists(folder) else None


def explanation(why, remedy):
    """Return a WSGI application that answers everything with 503 and says why, as a page or as a problem document."""
    restart = os.path.join(HERE, "tmp", "restart.txt")
    again = f"afterwards, touch {restart} or restart your web server (menu Help of the portal)"

    def answer(environ, start_response):
        if environ.get("PATH_INFO", "").startswith("/api/"):
            kind = "application/problem+json"
            document = {
                "type": "/problems/not-installed",
                "title": "Lossi cannot start",
                "status": 503,
                "detail": why,
                "why": "",
                "hint": f"tell your site's support: {remedy}; {again}",
            }
            body = json.dumps(document).encode("ascii")
        else:
            kind = "text/html; charset=utf-8"
            words = tuple(re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(text)) for text in (why, remedy, again))
            body = PAGE.format(*words).encode("utf-8", "replace")
        headers = [
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        start_response("503 Service Unavailable", headers)
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]

    return answer


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Lossi cannot start</title>
<style>body {{ max-width: 45rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }}</style>
</head>
<body>
<h1>Lossi cannot start</h1>
<p>Why: {}.</p>
<p>What to do: please tell your site's support. They can {}; {}.</p>
<p>Your jobs and runs are not affected: they do not depend on this page.</p>
</body>
</html>
"""

try:
    application = portal()
except CannotStart as cannot:
    sys.stderr.write(f"lossi: cannot start: {cannot.why}\n")
    application = explanation(cannot.why, cannot.remedy)
except Exception as unexpected:
    traceback.print_exc()
    application = explanation(
        f"an unexpected error ({type(unexpected).__name__}) whose details are in your web server's log",
        "look there, under /var/log/ondemand-nginx, and run `lossi doctor`",
    )
