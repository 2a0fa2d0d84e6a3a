"""P12: from the start of a session's job to Jupyter answering, against bare `jupyter lab` in the same container, each a job on Slurm.

Both in turns on a warm page cache; medians. A session also chooses a port, makes a password and its hash, and checks whose socket
it is; the bare one is asked as often as a session asks.
"""

from __future__ import annotations

import shlex
import statistics
import sys
from pathlib import Path

from on_slurm import Row, cluster, measured

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("", "ood", "containers")]
import built_environment  # noqa: E402
import yaml  # noqa: E402
from batch_connect import App, Session  # noqa: E402
from jupyter_use import VALUES  # noqa: E402
from slurm_site import Site  # noqa: E402

ROUNDS = 5
GOAL = 1.3
BARE = """#!/bin/bash
date +%s.%N >began
{argv} &
until (exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET /api HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ <&3) 2>/dev/null; do sleep 0.05; done
date +%s.%N >answered
kill %1
wait
"""


def measure() -> list[Row]:
    built = built_environment.build()
    with cluster() as slurm:
        site = Site(slurm, partitions=[{"name": "small"}])
        catalog = built.catalog(site.file.with_suffix(".catalog.yml"))
        site.file.write_text(site.file.read_text() + yaml.safe_dump({"catalogs": [str(catalog)]}))
        app = App.install(slurm, "jupyter", site.env)
        ours: list[float] = []
        peer: list[float] = []
        for turn in range(ROUNDS + 1):  # the first of each warms the page cache
            session = app.start(site.user, VALUES, header='date +%s.%N >"$SLURM_SUBMIT_DIR/began"')
            session.connection()
            ended = (session.staged / "connection.yml").stat().st_mtime
            taken = ended - float((session.staged / "began").read_text())
            session.cancel()
            session.until_ended()
            alone = bare(session, turn)
            if turn:
                ours.append(taken)
                peer.append(alone)
        slurm.run_as(site.user, ["sh", "-c", "cd && rm -rf ondemand .ipython .jupyter .local/share/jupyter"])
    mine, theirs = statistics.median(ours), statistics.median(peer)
    return [
        {
            "id": "P12",
            "what": "job start to Jupyter answering: lossi-jupyter | jupyter lab in the same container",
            "ours": f"{mine:.2f} s",
            "peer": f"{theirs:.2f} s",
            "ratio": f"{mine / theirs:.2f} ×",
            "goal": f"≤ {GOAL} ×",
            "met": mine / theirs <= GOAL,
        }
    ]


def bare(session: Session, turn: int) -> float:
    """Run JupyterLab in the session's container without anything of ours, and return how long it took to answer."""
    words = (session.staged / "words").read_bytes().decode().split("\0")
    port = 34000 + turn
    argv = [*words[: words.index("python3")], "python3", "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1"]
    argv += [f"--ServerApp.port={port}", "--IdentityProvider.token=bare"]
    folder = session.cluster.project(session.user)
    script = folder / "bare.sh"
    script.write_text(BARE.format(argv=shlex.join(argv), port=port))
    session.cluster.give(script, session.user)
    job = session.cluster.sbatch(session.user, "exec bash bare.sh", cwd=folder)
    session.cluster.wait((folder / "answered").exists, "bare JupyterLab answers")
    session.cluster.run_as(session.user, ["scancel", str(job)])
    return float((folder / "answered").read_text()) - float((folder / "began").read_text())


if __name__ == "__main__":
    measured(__doc__, measure)
