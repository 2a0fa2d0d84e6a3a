"""The real Passenger: Debian's Apache with mod_passenger on 127.0.0.1, set up as Open OnDemand's nginx sets up a user's apps.

One process per app, as an ordinary user, below ``/pun/…``, with what Open OnDemand leaves in the environment. The server is a
child of the test and not the system's own; it needs root, because only root may start apps as somebody else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import host

APACHE = "/usr/sbin/apache2"
MODULES = Path("/usr/lib/apache2/modules")
LOCATIONS = Path("/usr/lib/ruby/vendor_ruby/phusion_passenger/locations.ini")
PORTAL = Path(__file__).resolve().parents[2] / "passenger-app"
SECRET_KEY_BASE = "0123456789abcdef" * 8
LEFT_BY_THE_PORTAL = {
    "RUBYOPT": "-r bundler/setup",
    "RUBYLIB": "/opt/ood/nowhere",
    "BUNDLE_GEMFILE": "/opt/ood/nowhere/Gemfile",
    "BUNDLE_PATH": "/opt/ood/nowhere",
    "GEM_HOME": "/opt/ood/nowhere",
    "NODE_PATH": "/opt/ood/nowhere",
    "PYTHONPATH": "/opt/ood/nowhere",
    "PYTHONHOME": "",
    "ONDEMAND_VERSION": "4.2.3",
    "ONDEMAND_PORTAL": "ondemand",
    "ONDEMAND_TITLE": "Open OnDemand",
    "OOD_DASHBOARD_TITLE": "Open OnDemand",
    "OOD_FILES_URL": "/pun/sys/dashboard/files",
    "OOD_EDITOR_URL": "/pun/sys/dashboard/files/edit",
    "NGINX_FILE_UPLOAD_MAX": "10737420000",
    "SECRET_KEY_BASE": SECRET_KEY_BASE,
}
"""Open OnDemand's variables for an app, added to the user's own."""

# As /opt/ood/nginx_stage/bin/python: the app's own interpreter, in the app's folder.
WRAPPER = """#!/bin/sh
if [ -x bin/python ]; then exec bin/python "$@"; fi
exec /usr/bin/python3 "$@"
"""


def why_not() -> str:
    """Return why Passenger cannot be started here; empty if it can."""
    if os.geteuid() == 0 and Path(APACHE).exists() and (MODULES / "mod_passenger.so").exists():
        return ""
    return "no Passenger: needs root on Debian or Ubuntu with apache2 and libapache2-mod-passenger (tests/provision.sh)"


@dataclass(frozen=True)
class App:
    """A mounted app.

    Parameters
    ----------
    uri
        Where, such as ``/pun/sys/lossi``.
    root
        Folder with ``passenger_wsgi.py`` and ``public``.
    environment
        Variables that only this app has.
    """

    uri: str
    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Passenger:
    """A running server."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """The log of server and apps."""
        return (self.folder / "error.log").read_text("utf-8", "replace")

    def processes(self, app: App) -> list[int]:
        """Return the ids of an app's processes: those whose environment names its mount and whose folder is the app's."""
        pids = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "cwd").readlink() == app.root.resolve():
                    variables = (entry / "environ").read_bytes().split(b"\0")
                    if f"PASSENGER_BASE_URI={app.uri}".encode() in variables:
                        pids.append(int(entry.name))
        return pids

    def end(self, app: App) -> None:
        """End an app's process, as Passenger does with an idle one; the next request starts another."""
        for process in self.processes(app):
            os.kill(process, signal.SIGTERM)
        until(lambda: not self.processes(app), f"{app.uri} has ended")


def app_folder(target: Path, python: Path | str | None, source: Path = PORTAL) -> Path:
    """Install an app as a site does: the files that Passenger needs, and a file that names the interpreter.

    Parameters
    ----------
    target
        The new folder.
    python
        The interpreter; None leaves the app without an environment.
    """
    target.mkdir(parents=True)
    for name in ("manifest.yml", "icon.svg", "passenger_wsgi.py", "starting.py", "bin", "public"):
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        elif (source / name).exists():
            shutil.copy(source / name, target / name)
    (target / "tmp").mkdir()
    if python is not None:
        (target / "environment").write_text(f"{python}\n")
    return target


@contextlib.contextmanager
def passenger(
    apps: Sequence[App], user: str, environment: Mapping[str, str], *, idle_s: int = 300, settings: Sequence[str] = ()
) -> Iterator[Passenger]:
    """Serve apps as a user; server and apps end with the block, or with this process.

    Parameters
    ----------
    environment
        HOME, PATH and whatever else the user's apps have, besides `LEFT_BY_THE_PORTAL`.
    idle_s
        Seconds after which an unused app is ended.
    settings
        Further lines for the server.
    """
    folder = Path(tempfile.mkdtemp(prefix="lossi-passenger-", dir="/var/tmp"))
    folder.chmod(0o755)
    server = None
    try:
        (folder / "python").write_text(WRAPPER)
        (folder / "python").chmod(0o755)
        (folder / "htdocs").mkdir()
        (folder / "instances").mkdir(mode=0o755)
        port = free_port()
        (folder / "apache.conf").write_text(_configuration(folder, port, apps, user, environment, idle_s, settings))
        argv = [
            "setpriv",
            "--pdeathsig",
            "TERM",
            APACHE,
            "-d",
            str(folder),
            "-f",
            str(folder / "apache.conf"),
            "-D",
            "FOREGROUND",
        ]
        with (folder / "output").open("wb") as output:
            server = subprocess.Popen(
                argv, cwd="/", env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}, stdout=output, stderr=output
            )
        running = Passenger(port, folder)

        def answers() -> bool:
            assert server.poll() is None, (folder / "output").read_text() + (
                running.log if (folder / "error.log").exists() else ""
            )
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            return False

        until(answers, "Apache answers")
        yield running
    finally:
        if server is not None:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            until(lambda: not _left(folder), "Passenger has ended")
        shutil.rmtree(folder, ignore_errors=True)


def until(look: Callable[[], object], what: str) -> None:
    """Wait until ``look()`` is true."""
    end = time.monotonic() + host.PATIENCE_S
    while not look():
        assert time.monotonic() < end, f"not within {host.PATIENCE_S} s: {what}"
        time.sleep(0.02)


def free_port() -> int:
    """Return a free port, below the kernel's ephemeral ports and above those of the test clusters."""
    for port in range(31000 + os.getpid() % 97 * 10, 32700):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                candidate.bind(("127.0.0.1", port))
                return port
    raise RuntimeError("no free port between 31000 and 32700")


def _left(folder: Path) -> list[int]:
    """Return Passenger's own processes that still use the folder."""
    pids = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(folder).encode() in (entry / "cmdline").read_bytes() and (entry / "exe").exists():
                pids.append(int(entry.name))
    return [process for process in pids if process != os.getpid()]


def _configuration(
    folder: Path,
    port: int,
    apps: Sequence[App],
    user: str,
    environment: Mapping[str, str],
    idle_s: int,
    settings: Sequence[str],
) -> str:
    modules = ("mpm_event", "authz_core", "alias", "dir", "env", "mime", "headers", "passenger")
    lines = [
        *(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in modules),
        f"Listen 127.0.0.1:{port}",
        "ServerName 127.0.0.1",
        f"PidFile {folder}/apache.pid",
        f"DefaultRuntimeDir {folder}",
        f"Mutex file:{folder} default",
        f"ErrorLog {folder}/error.log",
        "TypesConfig /etc/mime.types" if Path("/etc/mime.types").exists() else "TypesConfig /dev/null",
        "User www-data",
        "Group www-data",
        f"DocumentRoot {folder}/htdocs",
        f"PassengerRoot {LOCATIONS}",
        f"PassengerInstanceRegistryDir {folder}/instances",
        f"PassengerPython {folder}/python",
        "PassengerDisableAnonymousTelemetry on",
        "PassengerDisableSecurityUpdateCheck on",
        f"PassengerUser {user}",
        "PassengerMaxInstancesPerApp 1",
        "PassengerMinInstances 0",
        f"PassengerPoolIdleTime {idle_s}",
        "PassengerStatThrottleRate 0",  # check restart.txt on each request
        *settings,
        *(f'SetEnv {name} "{value}"' for name, value in {**LEFT_BY_THE_PORTAL, **environment}.items()),
        f'<Directory "{folder}/htdocs">',
        "  Require all granted",
        "</Directory>",
    ]
    for app in apps:
        lines += [
            f'Alias "{app.uri}" "{app.root}/public"',
            f'<Location "{app.uri}">',
            f"  PassengerBaseURI {app.uri}",
            f"  PassengerAppRoot {app.root}",
            f"  PassengerAppGroupName {app.uri.strip('/').replace('/', '-')}",
            f"  PassengerAppEnv {'development' if app.uri.startswith('/pun/dev/') else 'production'}",
            "  PassengerAppType wsgi",
            "  PassengerStartupFile passenger_wsgi.py",
            "  PassengerFriendlyErrorPages off",
            *(f'  SetEnv {name} "{value}"' for name, value in app.environment.items()),
            "</Location>",
            f'<Directory "{app.root}/public">',
            "  Options FollowSymLinks",
            "  Require all granted",
            "</Directory>",
        ]
    return "\n".join(lines) + "\n"
