"""How the apps ask: ``python -m lossi.ood form APP`` prints a form, ``submit APP`` turns what it sent (JSON on stdin) into a job.

A refusal is one line on stderr and exit code 1: the app shows it above its form.
"""

from __future__ import annotations

import json
import sys

from lossi.errors import InvalidInput, LossiError


def main(arguments: list[str]) -> int:
    """Answer one question and return the exit code."""
    try:
        from lossi.ood import apps

        match arguments:
            case ["form", name]:
                answer = apps.get(name).form()
            case ["submit", name]:
                answer = apps.get(name).submit(_values(sys.stdin.buffer.read()))
            case _:
                raise InvalidInput(f"usage: python -m lossi.ood form|submit {'|'.join(apps.APPS)}")
    except (LossiError, OSError) as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        return 1
    # Characters that YAML would want escaped are refused before; JSON's way of escaping the others is not YAML's.
    sys.stdout.buffer.write(json.dumps(answer, ensure_ascii=False).encode("utf-8") + b"\n")
    return 0


def _values(data: bytes) -> dict[str, str]:
    """Return what a form sent: texts by name; what has no value is left out."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidInput("the form sent nothing that can be read", hint="reload the page and send it again")
    return {name: value for name, value in found.items() if isinstance(value, str)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
