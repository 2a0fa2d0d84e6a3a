"""``lossi serve``: the portal on 127.0.0.1 for machines without Open OnDemand, behind a token."""

from __future__ import annotations

import socket
from typing import Annotated, Any

import typer

from lossi.cli import options, output


def serve(
    project: options.Project = None,
    port: Annotated[int | None, typer.Option(help="Port on 127.0.0.1; 0 picks a free one.", min=0, max=65535)] = None,
    link: Annotated[bool, typer.Option("--link", help="Only print a new link to the running server.")] = False,
) -> None:
    """Serve the portal on 127.0.0.1 and print the link that opens it.

    The link works once, for ten minutes; `lossi serve --link` prints another. Programs send the token from
    ~/.local/state/lossi/serve/token as `Authorization: Bearer …`.
    """
    from lossi import settings
    from lossi.api import security

    chosen = settings.load().serve_port if port is None else port
    auth = security.token_mode()
    if link:
        output.say(f"http://127.0.0.1:{chosen}/?code={security.new_code()}")
        return
    listener = _listen(chosen, given=port is not None)
    number = listener.getsockname()[1]
    output.say("Lossi is running for you only. Open this link (works once, within ten minutes):")
    output.say(f"  http://127.0.0.1:{number}/?code={security.new_code()}")
    output.say("From another machine, first: ssh -L " + f"{number}:127.0.0.1:{number} {socket.gethostname()}")
    again = "lossi serve --link" + (f" --port {number}" if number != settings.load().serve_port else "")
    output.say(f"Another link: {again}    Token for programs: {security.token_file()}    Stop: Ctrl-C")
    _run(auth, listener, options.project(project) if project or _inside_project() else None)


def _inside_project() -> bool:
    from lossi.errors import NotFound

    try:
        options.project(None)
    except NotFound:
        return False
    return True


def _listen(port: int, *, given: bool) -> socket.socket:
    """Bind 127.0.0.1; the default port falls back to a free one, a port of the user does not."""
    from lossi.errors import Unavailable

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        if given:
            raise Unavailable(
                f"cannot use port {port}", why=error.strerror or str(error), hint="choose another one with --port"
            ) from None
        listener.bind(("127.0.0.1", 0))
    listener.listen(64)  # a browser that connects before the application is ready waits
    return listener


def _run(auth: Any, listener: socket.socket, project: Any) -> None:
    from gunicorn.app.base import BaseApplication

    from lossi.app import create_app

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            self.cfg.set("bind", f"fd://{listener.fileno()}")
            # One worker with a few threads: pages poll while a slow response is computed.
            self.cfg.set("workers", 1)
            self.cfg.set("threads", 4)
            self.cfg.set("timeout", 60)
            self.cfg.set("loglevel", "warning")
            self.cfg.set("worker_tmp_dir", None)
            self.cfg.set("control_socket_disable", True) if "control_socket_disable" in self.cfg.settings else None

        def load(self) -> Any:
            return create_app(auth, project=project)

    listener.set_inheritable(True)
    Server().run()
