"""The command of the apps: ``python -m lossi.ood form APP`` prints a form, ``submit APP`` turns its values (JSON on stdin) into a job.

A refusal is one line on stderr and exit code 1: the app shows it above its form.
"""

from __future__ import annotations

import json
import sys

from lossi.errors import InvalidInput, LossiError


def main(arguments: list[str]) -> int:
    """Run one command and return the exit code."""
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
    # YAML reads JSON, but not its surrogate pairs. Control characters have been refused before.
    sys.stdout.buffer.write(json.dumps(answer, ensure_ascii=False).encode("utf-8") + b"\n")
    return 0


def _values(data: bytes) -> dict[str, str]:
    """Return the values of a form by name; fields without a value are left out."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise InvalidInput("the form's values cannot be read", hint="reload the page and submit again")
    return {name: value for name, value in values.items() if isinstance(value, str)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
