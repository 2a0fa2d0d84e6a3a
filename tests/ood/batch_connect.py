"""Open OnDemand's part of an interactive app, by its contract: form, submission, staging, job script, connection file, proxy.

Needs no Open OnDemand: the real Ruby renders the templates, the job runs on the tests' Slurm as one of its users, and `Proxied`
talks to the session as the portal's proxy does.
"""

from __future__ import annotations

import functools
import json
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import host
import httpx
import yaml
from real_cluster import OwnCluster

TREE = Path(__file__).resolve().parents[2]
RENDERER = Path(__file__).with_name("render_erb.rb")
PORTAL = "https://portal.example"
RUBY = host.which("ruby") or "ruby"


def render(requests: Sequence[Mapping[str, Any]], renderer: Path = RENDERER, env: Mapping[str, str] | None = None) -> list[Any]:
    """Render templates in one Ruby process; see ``render_erb.rb``."""
    done = subprocess.run([RUBY, str(renderer)], input=json.dumps(list(requests)), capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def has_ruby() -> bool:
    return host.which("ruby") is not None


@dataclass(frozen=True)
class App:
    """An app of ``ood-apps`` as a site has installed it."""

    cluster: OwnCluster
    folder: Path
    env: Mapping[str, str]
    sessions: list[Session] = field(default_factory=list)
    """What was started; the fixture that installs the app removes it."""
    home: Path | None = None
    """The users' home, if it is not their own."""

    @classmethod
    def install(cls, cluster: OwnCluster, name: str, env: Mapping[str, str]) -> App:
        """Install it readable for every user, with the environment that answers its form."""
        folder = cluster.root / "apps" / f"lossi-{name}-{uuid.uuid4().hex[:8]}"
        shutil.copytree(TREE / "ood-apps" / name, folder)
        (folder / "environment").write_text(f"{cluster.installation.python}\n")
        shutil.copy(RENDERER, folder.parent)
        folder.parent.chmod(0o755)
        return cls(cluster, folder, env)

    def template(self, name: str, kind: str, user: str, names: Mapping[str, Any], *, parsed: bool = False) -> Any:
        """Render one of its templates as a user."""
        request = {"path": str(self.folder / name), "kind": kind, "names": dict(names), "yaml": parsed}
        argv = [*self.at_home(), "ruby", str(self.folder.parent / RENDERER.name)]
        done = self.cluster.run_as(user, argv, env=self.env, text=json.dumps([request]))
        return json.loads(done.stdout)[0]

    def at_home(self) -> list[str]:
        """Return the start of a user's argv."""
        return ["env", f"HOME={self.home}"] if self.home else []

    def staged(self, user: str) -> Path:
        """Return the folder of a new session."""
        home = self.home or self.cluster.home(user)
        return home / "ondemand" / "data" / "sys" / "dashboard" / "batch_connect" / str(uuid.uuid4())

    def start(self, user: str, values: Mapping[str, str], **context: Any) -> Session:
        """Submit a form's values as Open OnDemand does; a refusal fails the test.

        ``context`` are settings of ``clusters.d`` for the job script: ``min_port``, ``max_port``, ``header``.
        """
        staged = self.staged(user)
        if self.home:
            context["header"] = f"export HOME={shlex.quote(str(self.home))}\n{context.get('header', '')}"
        answer = self.template("submit.yml.erb", "struct", user, {**values, "staged_root": str(staged)}, parsed=True)
        assert "error" not in answer, answer["error"]
        submission = answer["yaml"]
        self.cluster.run_as(user, ["mkdir", "-p", staged])
        self.cluster.run_as(user, ["rsync", "-rlp", f"{self.folder}/template/", staged])
        context_file = staged / "user_defined_context.json"
        context_file.write_text(json.dumps(dict(values)))
        self.cluster.give(context_file, user)
        batch_connect = submission["batch_connect"]
        script = job_script(staged, batch_connect.get("conn_params", []), **context)
        body = staged / "job_script_content.sh"
        body.write_text(script)
        self.cluster.give(body, user)
        argv = ["sbatch", "--parsable", "-D", str(staged), "-o", str(staged / "output.log"), "-J", "sys/dashboard/sys/lossi"]
        argv += ["--export", "NONE", *options(submission["script"]), str(body)]
        job = self.cluster.run_as(user, argv, cwd=staged).stdout.strip()
        self.sessions.append(Session(self, user, staged, job))
        return self.sessions[-1]


def options(script: Mapping[str, Any]) -> list[str]:
    """Return sbatch's options for the ``script`` part of a submission."""
    argv = list(script.get("native", []))
    for name, option in (("queue_name", "-p"), ("accounting_id", "-A"), ("qos", "-q")):
        if name in script:
            argv += [option, script[name]]
    if "wall_time" in script:
        argv += ["-t", str(script["wall_time"] // 60)]
    return argv


def job_script(staged: Path, params: Sequence[str], *, min_port: int = 20000, max_port: int = 32000, header: str = "") -> str:
    """Return a job script with the order and helpers that apps may rely on."""
    names = " ".join(dict.fromkeys([*params, "host", "port", "password"]))
    return f"""#!/bin/bash
{header}
cd {shlex.quote(str(staged))}
export host port
create_yml() {{
  (umask 077 && for name in {names}; do echo "$name: ${{!name}}"; done >connection.yml)
}}
clean_up() {{
  [[ -e clean.sh ]] && source clean.sh
  [[ ${{SCRIPT_PID:-}} ]] && pkill -P "$SCRIPT_PID"
  pkill -P $$
  exit "${{1:-0}}"
}}
source_helpers() {{
  random_number() {{ shuf -i "$1-$2" -n 1; }}
  port_used_bash() {{ (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }}  # exported by none
  port_used() {{ port_used_bash "${{1%:*}}" "${{1##*:}}"; }}
  find_port() {{
    local found
    found=$(random_number "${{2:-{min_port}}}" "${{3:-{max_port}}}")
    while port_used "${{1:-localhost}}:$found"; do found=$(random_number "${{2:-{min_port}}}" "${{3:-{max_port}}}"); done
    echo "$found"
  }}
  create_passwd() {{ tr -cd '[:alnum:]' </dev/urandom 2>/dev/null | head -c "${{1:-32}}"; }}
  wait_until_port_used() {{
    local count
    for ((count = 0; count < ${{2:-30}} * 2; count++)); do port_used "$1" && return; sleep 0.5; done
    return 1
  }}
  export -f random_number port_used find_port create_passwd wait_until_port_used
}}
export -f source_helpers
source_helpers
host=$(hostname)
[[ -e before.sh ]] && source before.sh
./script.sh &
SCRIPT_PID=$!
[[ -e after.sh ]] && source after.sh
create_yml
wait "$SCRIPT_PID" || clean_up 1
clean_up
"""


@dataclass(frozen=True)
class Session:
    """A session that was submitted."""

    app: App
    user: str
    staged: Path
    job: str

    @property
    def cluster(self) -> OwnCluster:
        return self.app.cluster

    def connection(self) -> dict[str, Any]:
        """Wait until it is ready and return the content of ``connection.yml``."""
        path = self.staged / "connection.yml"

        def there() -> bool:
            if self.ended():
                raise AssertionError(f"it ended: {self.status()}\n{self.log()}")
            return path.exists()

        self.cluster.wait(there, "the session can be used")
        values: dict[str, Any] = yaml.safe_load(path.read_text())
        return values

    def ended(self) -> bool:
        return self.cluster.job(self.user, self.job).get("JobState", "") not in (
            "PENDING",
            "RUNNING",
            "COMPLETING",
            "CONFIGURING",
        )

    def until_ended(self) -> None:
        self.cluster.wait(self.ended, "the session has ended")

    def cancel(self) -> None:
        self.cluster.run_as(self.user, ["scancel", self.job])

    def status(self) -> Any:
        path = self.staged / "status.json"
        return json.loads(path.read_text()) if path.exists() else None

    def log(self) -> str:
        logs = [path.read_text("utf-8", "replace")[-4000:] for path in self.staged.glob("*.log")]
        return "\n".join(logs)

    def card(self, name: str, *, completed: bool) -> str:
        """Render ``info.html.erb`` or ``completed.html.erb``."""
        names = {"staged_root": str(self.staged), "completed": completed, "running": not completed}
        answer = self.app.template(name, "session", self.user, names)
        assert "error" not in answer, answer
        return str(answer["text"])

    @functools.cached_property
    def proxied(self) -> Proxied:
        connection = self.connection()
        return Proxied(str(connection["host"]), int(connection["port"]))


@dataclass(frozen=True)
class Proxied:
    """A server on a node, as a browser sees it through the portal."""

    host: str
    port: int

    @property
    def base(self) -> str:
        return f"/node/{self.host}/{self.port}/"

    @property
    def headers(self) -> dict[str, str]:
        """A browser's headers after the proxy: its own Host, no Authorization."""
        return {
            "Host": f"{self.host}:{self.port}",
            "X-Forwarded-Host": PORTAL.partition("://")[2],
            "X-Forwarded-Proto": "https",
            "X-Forwarded-User": "somebody",
        }

    def browser(self, **headers: str) -> httpx.Client:
        """Return a client that keeps cookies and does not follow redirects."""
        return httpx.Client(
            base_url=f"http://{self.host}:{self.port}{self.base}",
            headers={**self.headers, **headers},
            timeout=300,
            trust_env=False,
        )
