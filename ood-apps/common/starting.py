"""Starts a Passenger app, or answers every request with a page that says why it cannot start.

Readable by Python 3.6, standard library only: without an environment, the system's Python runs this file.
"""

import html
import json
import os
import re
import sys
import traceback

OLDEST = (3, 11)

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} cannot start</title>
<style>body {{ max-width: 45rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }}</style>
</head>
<body>
<h1>{name} cannot start</h1>
<p>Why: {why}.</p>
<p>What to do: please tell your site's support. They can {remedy}; {restart}.</p>
<p>{meanwhile}</p>
</body>
</html>
"""


class CannotStart(Exception):
    """Why there is no application, and what the site's administrators can do about it."""

    def __init__(self, why, remedy):
        Exception.__init__(self, why)
        self.why = why
        self.remedy = remedy


def start(folder, name, create, meanwhile):
    """Return the WSGI application that ``create`` returns, or one that says why there is none.

    Parameters
    ----------
    folder
        The app's folder.
    name
        Its name, for people.
    create
        Called without arguments, by a Python that is new enough; may raise `CannotStart`.
    meanwhile
        Sentence on what works all the same.
    """
    try:
        check_interpreter(folder)
        return create()
    except CannotStart as cannot:
        sys.stderr.write(f"lossi: {name} cannot start: {cannot.why}\n")
        why, remedy = cannot.why, cannot.remedy
    except Exception as unexpected:
        traceback.print_exc()
        why = f"an unexpected error ({type(unexpected).__name__}); your web server's log has the details"
        remedy = "look in the log, under /var/log/ondemand-nginx, and run `lossi doctor`"
    return explanation(folder, name, why, remedy, meanwhile)


def check_interpreter(folder):
    """Raise `CannotStart` if the environment's interpreter cannot be run, or this one is too old."""
    chosen = environment(folder)
    if chosen and not os.access(chosen, os.X_OK):
        raise CannotStart(
            f"the app's environment, {chosen}, is missing or you may not run it",
            "run `lossi install` again, or let everybody read and run that environment",
        )
    if sys.version_info < OLDEST:
        raise CannotStart(
            "{} is Python {}.{}, Lossi needs {}.{} or later".format(sys.executable, *sys.version_info[:2], *OLDEST),
            "run `lossi install` with a newer Python: it makes an environment for the app",
        )


def environment(folder):
    """Return the interpreter that ``bin/python`` tries first; None if the app's folder names none."""
    try:
        with open(os.path.join(folder, "environment"), encoding="utf-8", errors="surrogateescape") as stream:
            return os.path.join(folder, stream.readline().rstrip("\n"))
    except OSError:
        venv = os.path.join(folder, "venv")
        return os.path.join(venv, "bin", "python") if os.path.lexists(venv) else None


def explanation(folder, name, why, remedy, meanwhile):
    """Return a WSGI application that answers everything with 503, as a page or, below ``/api/``, as a problem document."""
    restart_file = os.path.join(folder, "tmp", "restart.txt")
    restart = f"afterwards, touch {restart_file} or restart your web server (menu Help of the portal)"

    def answer(environ, start_response):
        if environ.get("PATH_INFO", "").startswith("/api/"):
            kind = "application/problem+json"
            document = {
                "type": "/problems/not-installed",
                "title": f"{name} cannot start",
                "status": 503,
                "detail": why,
                "why": "",
                "hint": f"tell your site's support: {remedy}; {restart}",
            }
            body = json.dumps(document).encode("ascii")
        else:
            kind = "text/html; charset=utf-8"
            texts = {"name": name, "why": why, "remedy": remedy, "restart": restart, "meanwhile": meanwhile}
            marked = {key: re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(text)) for key, text in texts.items()}
            body = PAGE.format(**marked).encode("utf-8", "replace")
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
