"""`make bench`: run the measurements one after the other, print one table, write build/bench.json.

Each measurement is a script in this folder, `<id>_<what>.py --json FILE`, that writes a list of rows with the
members `id`, `what`, `ours`, `peer`, `ratio`, `goal` and `met`.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COLUMNS = ("id", "what", "ours", "peer", "ratio", "goal", "met")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="one measurement, such as P5")
    chosen = parser.parse_args().only
    scripts = [path for path in sorted(HERE.glob("p*_*.py")) if not chosen or path.name.split("_")[0] == chosen.lower()]
    if not scripts:
        print(
            f"there is no measurement {chosen!r}; there are {', '.join(p.name.split('_')[0].upper() for p in sorted(HERE.glob('p*_*.py')))}"
        )
        return 2
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    rows = []
    for script in scripts:
        answer = build / f"{script.stem}.json"
        answer.unlink(missing_ok=True)
        print(f"measuring {script.stem.replace('_', ' ')} …", flush=True)
        subprocess.run([sys.executable, str(script), "--json", str(answer)], check=True, cwd=ROOT)
        rows += json.loads(answer.read_text())
    table = [[str(row[name]) if row[name] is not None else "–" for name in COLUMNS] for row in rows]
    widths = [max(len(line[i]) for line in [list(COLUMNS), *table]) for i in range(len(COLUMNS))]
    for line in [list(COLUMNS), *table]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(f"{platform.machine()}, {platform.python_implementation()} {platform.python_version()}, {_cores()} cores")
    (build / "bench.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    return 0 if all(row["met"] is not False for row in rows) else 1


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    raise SystemExit(main())
