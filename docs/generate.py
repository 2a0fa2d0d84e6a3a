"""Writes the reference pages that follow from the code (`PAGES` below) for `make docs`.

A unit test compares the committed pages with what this prints, so no command, operation, setting or fact can be missing.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel

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
    return _page(lines)


def site_file() -> str:
    """Return the page of the site file's section on clusters."""
    from lossi.clusters import AccountPolicy, Cluster, GpuType, Mount, OfferedPartition, PySlurmSettings, RestSettings

    lines = [
        "# The site file: clusters\n",
        "`/etc/lossi/site.yml` (or `$LOSSI_SITE`) also holds the [settings](settings.md) and the section `environments` (its form is that of",
        "the [catalogue](../containers/README.md)). This page lists the keys of a cluster; for their purpose see the",
        "[admin guide](admin-guide.md); whole examples are in [sites](sites).\n",
        "| key | meaning |",
        "|---|---|",
        "| `default_cluster` | Name of the cluster for jobs that name none; unset: the first by name. |",
        "| `clusters` | Name of a cluster → its keys, below. They add to what OOD's `clusters.d` has of that name, or replace it. |\n",
    ]
    sections = {
        "A cluster: `clusters.NAME`": Cluster,
        "A partition: `partitions[]`": OfferedPartition,
        "A kind of GPU: `partitions[].gpu_types[]`": GpuType,
        "Accounts: `account`": AccountPolicy,
        "What containers see: `mounts[]`": Mount,
        "slurmrestd: `rest`": RestSettings,
        "PySlurm: `pyslurm`": PySlurmSettings,
    }
    for title, model in sections.items():
        lines += [f"## {title}\n", "| key | value | default | meaning |", "|---|---|---|---|"]
        for name, field in model.model_fields.items():
            if model is Cluster and name == "name":
                continue
            default = "needed" if field.is_required() else _default(field.default)
            lines.append(f"| `{name}` | {_value(field.annotation)} | {default} | {field.description} |")
        lines.append("")
    return _page(lines)


def _default(value: Any) -> str:
    if value is None or value in ((), {}) or isinstance(value, BaseModel):
        return "unset"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _value(annotation: Any) -> str:
    """Return in words what an annotation allows: ``tuple[Path, ...]`` is a list of paths."""
    origin, arguments = typing.get_origin(annotation), [item for item in typing.get_args(annotation) if item is not type(None)]
    if origin is typing.Literal:
        return ", ".join(f"`{item}`" for item in arguments)
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return _value(arguments[0])
    if origin is tuple:
        return "list" if hasattr(arguments[0], "model_fields") else f"list of {_value(arguments[0])}"
    if origin is dict or hasattr(annotation, "model_fields"):
        return "mapping"
    return {bool: "`true`, `false`", int: "whole number", float: "number", Path: "path"}.get(annotation, "text")


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
    return _page(lines)


def facts() -> str:
    """Return the page of the facts of a task."""
    from lossi.projects.facts import FACTS, TaskFacts

    lines = [
        "# Facts of a task\n",
        "Members of a task in REST and `--json`; in filters, orders, columns and exports of runs as `job.NAME`.",
        "*Source*: where it comes from; the first that has it counts. *Attempts*: what becomes of the scheduler's figures if a task",
        "was started again. How to add one: [adding a fact](developer/adding-a-fact.md).\n",
        "| name | unit | source | attempts | compared | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for name, fact in FACTS.items():
        attempts = fact.attempts if "scheduler" in fact.sources else ""
        compared = "yes" if fact.shown else ""
        description = TaskFacts.model_fields[name].description or ""
        lines.append(
            f"| `{name}` | {fact.unit} | {', '.join(fact.sources) or 'Lossi'} | {attempts} | {compared} | {description} |"
        )
    return _page(lines)


def commands() -> str:
    """Return the page of commands."""
    from typer.main import get_command

    from lossi import cli
    from lossi.cli.commands import build

    exits = (cli.__doc__ or "").split("Exit codes:")[1].strip()
    lines = [
        "# Commands\n",
        f"Exit codes: {exits}\n",
        "Completion for your shell: `lossi --install-completion`. Help for each command: `--help`.\n",
        *_command(get_command(build()), "lossi"),
    ]
    return _page(lines)


def _command(command: Any, name: str) -> list[str]:
    """Return the section of a command, or those of a group's commands."""
    if hasattr(command, "commands"):
        return [line for part, inner in command.commands.items() for line in _command(inner, f"{name} {part}")]
    rows = [f"| `{_cell(_spelling(item))}` | {_cell(item.help or '')} |" for item in command.params]
    table = ["| option | meaning |", "|---|---|", *rows, ""] if rows else []
    return [f"## {name}\n", f"{inspect.cleandoc(command.help or '')}\n", *table]


def _spelling(parameter: Any) -> str:
    """Return an argument or option as it is typed: ``SOURCE``, ``-p, --param NAME=VALUE``."""
    if parameter.param_type_name == "argument":
        return parameter.metavar or parameter.name.upper()
    flags = sorted((*parameter.opts, *parameter.secondary_opts), key=lambda flag: flag.startswith("--"))
    return ", ".join(flags) + (f" {parameter.metavar}" if parameter.metavar else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _page(lines: list[str]) -> str:
    """Return a page; its text is wrapped, headings and tables stay as they are."""
    paragraphs = re.split(r"\n(?=\n|- |\||#)", "\n".join(lines).rstrip())
    return HEADER + "\n".join(part if part.lstrip().startswith(("|", "#")) else _wrapped(part) for part in paragraphs) + "\n"


def _wrapped(paragraph: str) -> str:
    """Return a paragraph or an item of a list in lines of at most 100 characters that part no code or link."""
    start = "\n" if paragraph.startswith("\n") else ""
    text = re.sub(r"`[^`]+`|\[[^]]+\]", lambda match: match[0].replace(" ", "\0"), " ".join(paragraph.split()))
    lines = textwrap.wrap(
        text, 100, subsequent_indent="  " if text.startswith("- ") else "", break_long_words=False, break_on_hyphens=False
    )
    return start + "\n".join(lines).replace("\0", " ")


PAGES: dict[str, types.FunctionType] = {
    "settings.md": settings,
    "site-file.md": site_file,
    "rest.md": rest,
    "commands.md": commands,
    "facts.md": facts,
}


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
