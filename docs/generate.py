"""Writes the reference pages that follow from the code: commands.md, rest.md, settings.md (`make docs`).

A unit test compares the committed pages with what this prints, so a command, an operation or a setting cannot be missing.
"""

from __future__ import annotations

import inspect
import types
import typing
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HEADER = "<!-- Written by docs/generate.py (`make docs`); edit the code, not this page. -->\n\n"


def settings() -> str:
    """Return the page of settings."""
    from lossi.settings import LIMITS, Settings

    lines = [
        "# Settings\n",
        "Read from `/etc/lossi/site.yml` (or `$LOSSI_SITE`), then `~/.config/lossi/settings.yml`, then the environment; the later wins.",
        "A limit that the site sets can only be lowered. Folders follow `XDG_STATE_HOME`, `XDG_CACHE_HOME`, `XDG_CONFIG_HOME` and `TMPDIR`.\n",
        "| name | variable | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = "unset" if field.default in (None, ()) else f"`{field.default}`"
        limit = " (limit)" if name in LIMITS else ""
        lines.append(f"| `{name}` | `LOSSI_{name.upper()}` | {default} | {field.description}{limit} |")
    return HEADER + "\n".join(lines) + "\n"


def rest() -> str:
    """Return the page of REST operations."""
    from lossi.api.service import openapi
    from lossi.app import create_app

    app = create_app()
    with app.app_context():
        document = openapi(app)
    lines = [
        "# REST\n",
        "Below `/api/v1`; the whole contract with every field is `/api/v1/openapi.json`, for people at `/api/v1/docs/`.\n",
        "- Programs send `Authorization: Bearer TOKEN` (see `lossi serve`); browsers have a cookie and send `X-CSRF-Token` with writes.",
        "- Bodies are JSON. Errors are RFC 9457 problem documents with `detail`, `why` and `hint`.",
        "- Lists have `limit` and `cursor`; an answer's `next_cursor` leads on. Polled answers carry an ETag: send it as `If-None-Match`.",
        "- `Idempotency-Key` on `POST /jobs`: the same key submits once; the same key with another body is a 409.",
        "- `project` names the project: its name, or its absolute path. NaN and infinities are the strings `NaN`, `Infinity`, `-Infinity`.\n",
        "| operation | does |",
        "|---|---|",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            text = operation.get("description") or operation.get("summary") or ""
            lines.append(f"| `{method.upper()} {path}` | {' '.join(text.split())} |")
    return HEADER + "\n".join(lines) + "\n"


def commands() -> str:
    """Return the page of commands."""
    from lossi.cli.commands import build

    exits = (__import__("lossi.cli", fromlist=["cli"]).__doc__ or "").split("Exit codes:")[1].strip()
    lines = [
        "# Commands\n",
        f"Exit codes: {' '.join(exits.split())}\n",
        "Completion for your shell: `lossi --install-completion`. Help for each command: `--help`.\n",
    ]
    lines += _group(build(), "lossi")
    return HEADER + "\n".join(lines).rstrip() + "\n"


def _group(app: Any, name: str) -> list[str]:
    lines: list[str] = []
    for command in app.registered_commands:
        lines += _command(f"{name} {command.name or command.callback.__name__}", command.callback)
    for group in app.registered_groups:
        lines += _group(group.typer_instance, f"{name} {group.name}")
    return lines


def _command(name: str, callback: Any) -> list[str]:
    words = " ".join((inspect.getdoc(callback) or "").split())
    rows = []
    hints = typing.get_type_hints(callback, include_extras=True)
    for parameter in inspect.signature(callback).parameters.values():
        information = next(
            (item for item in getattr(hints[parameter.name], "__metadata__", ()) if hasattr(item, "param_decls")),
            parameter.default,
        )
        if not hasattr(information, "help"):
            continue
        if type(information).__name__ == "ArgumentInfo":
            spelled = information.metavar or parameter.name.upper()
        else:
            given = [item for item in information.param_decls or () if item.startswith("-")]
            long = f"--{parameter.name.replace('_', '-')}"
            negative = f"/--no-{parameter.name.replace('_', '-')}" if parameter.default is True and not given else ""
            spelled = ", ".join(given or [long + negative])
        rows.append(f"| `{spelled}` | {(information.help or '').replace('|', chr(92) + '|')} |")
    table = ["| option | meaning |", "|---|---|", *rows, ""] if rows else []
    return [f"## {name}\n", words + "\n", *table]


PAGES: dict[str, types.FunctionType] = {"settings.md": settings, "rest.md": rest, "commands.md": commands}


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
