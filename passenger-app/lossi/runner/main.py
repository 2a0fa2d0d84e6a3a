"""The runner's command line: ``run --job DIR --task N [--attempt K] [--rank R]``; ``notebook`` and ``client`` are its own children."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Dict, List

USAGE = "usage: python3 runner.pyz run --job DIR --task N [--attempt K] [--rank R]"


def main() -> int:
    """Run the command line; return the exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["notebook"]:
        from . import notebook

        return notebook.main(arguments[1:])
    if arguments[:1] == ["client"]:
        from . import mlflow_client

        return mlflow_client.main()
    try:
        options = parse_options(arguments)
        number, attempt, rank = int(options["--task"]), int(options.get("--attempt", "1")), int(options.get("--rank", "0"))
        if number < 0 or attempt < 1 or rank < 0:
            raise ValueError("--task and --rank count from 0, --attempt from 1")
    except (KeyError, ValueError) as error:
        print(f"{USAGE} ({error})", file=sys.stderr)
        return 2
    # First: a signal that comes while the rest is imported must not end the task without a trace.
    from .signals import Signals

    signals = Signals()
    from . import task

    return task.run(Path(os.path.abspath(options["--job"])), number, attempt, signals, rank)


def parse_options(arguments: List[str]) -> Dict[str, str]:
    """Parse the options of ``run``.

    Raises
    ------
    ValueError
        When the command or an option is unknown.
    KeyError
        When a required option is missing.
    """
    if arguments[:1] != ["run"] or len(arguments) % 2 == 0:
        raise ValueError("unknown command")
    options = dict(zip(arguments[1::2], arguments[2::2]))  # noqa: B905 - Python 3.9
    unknown = set(options) - {"--job", "--task", "--attempt", "--rank"}
    if unknown:
        raise ValueError(f"unknown option {sorted(unknown)[0]}")
    for needed in ("--job", "--task"):
        if needed not in options:
            raise KeyError(needed)
    return options
