"""Stands for ``srun`` where there is no Slurm: one process per further node, here; the end of its input reaches them all.

Tests put it on PATH by the name ``srun``. What it was asked is left in ``srun.json`` of its folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading


def main() -> int:
    """Start the processes and return the greatest of their exit codes."""
    options = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:] if word.startswith("--"))
    argv = [word for word in sys.argv[1:] if not word.startswith("--")]
    with open("srun.json", "w") as stream:  # noqa: PTH123 - in the folder where it was started
        json.dump({"options": options, "argv": argv, "environment": dict(os.environ)}, stream)
    writers, started = [], []
    for number in range(int(options["ntasks"])):
        reader, writer = os.pipe()
        environment = {**os.environ, "SLURM_PROCID": str(number), "SLURM_NTASKS": options["ntasks"]}
        started.append(subprocess.Popen(argv, stdin=reader, env=environment, start_new_session=True))
        os.close(reader)
        writers.append(writer)

    def pass_on() -> None:
        while os.read(0, 100):
            pass
        for writer in writers:
            os.close(writer)

    threading.Thread(target=pass_on, daemon=True).start()
    print("what a prologue may print is no account", flush=True)
    return max(process.wait() for process in started)


if __name__ == "__main__":
    sys.exit(main())
