"""What Passenger loads: MLflow's own pages on the user's projects, or a page that says why they cannot be shown.

The oldest Python that a portal host may have must be able to read this file: no syntax later than Python 3.6, and nothing but
the standard library until the environment has been found good.
"""

import html
import os
import sys
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
OLDEST = (3, 11)
PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>MLflow cannot start</title></head>
<body>
<h1>MLflow cannot start</h1>
<p>Why: {}.</p>
<p>What to do: please tell your site's support. They can name an environment with Lossi and MLflow in <code>{}</code> and touch <code>{}</code>.</p>
<p>Your runs are not affected: Lossi's own pages show them too.</p>
</body>
</html>
"""


def explanation(why):
    """Return a WSGI application that answers everything with 503 and says why."""
    names = (os.path.join(HERE, "environment"), os.path.join(HERE, "tmp", "restart.txt"))
    body = PAGE.format(*(html.escape(text) for text in (why,) + names)).encode("utf-8", "replace")  # noqa: RUF005

    def answer(environ, start_response):
        headers = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'self'"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        start_response("503 Service Unavailable", headers)
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]

    return answer


def missing():
    """Return why this environment cannot do it; empty when it can."""
    if sys.version_info < OLDEST:
        return "{} is Python {}.{}, Lossi needs {}.{} or later".format(sys.executable, *sys.version_info[:2], *OLDEST)
    from importlib.util import find_spec

    absent = [name for name in ("lossi", "mlflow", "sqlalchemy") if find_spec(name) is None]
    return "{} has no {}".format(sys.executable, " and no ".join(absent)) if absent else ""


try:
    lacking = missing()
    if lacking:
        sys.stderr.write("lossi: cannot start MLflow: {}\n".format(lacking))  # noqa: UP032
        application = explanation(lacking)
    else:
        from lossi.mlflow_ui.embedded import Embedded

        application = Embedded()
except Exception as unexpected:
    traceback.print_exc()
    application = explanation(
        "an unexpected error ({}) whose details are in your web server's log".format(type(unexpected).__name__)  # noqa: UP032
    )
