"""``python -m lossi.tracking.ingest --project PATH [--budget S]``: ingest a project; prints the report as a line of JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lossi import jsonable
from lossi.projects import Project
from lossi.tracking.ingest.entry import ingest_runs


def main() -> int:
    """Run ingest with the process's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m lossi.tracking.ingest", description="ingest what a project's tasks published"
    )
    parser.add_argument("--project", type=Path, required=True, help="the project's folder")
    parser.add_argument("--budget", type=float, default=None, help="stop after about this many seconds")
    options = parser.parse_args()
    report = ingest_runs(Project(options.project.resolve()), budget_s=options.budget)
    sys.stdout.write(json.dumps(jsonable.plain(report), ensure_ascii=False) + "\n")
    return 0


sys.exit(main())
