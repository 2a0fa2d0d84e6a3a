"""The child process of `rendering`: reads a notebook from standard input, writes a page or a problem report.

The only module of this room that imports nbconvert. It is run as a file by the interpreter of Lossi, never imported by the
web process: ``python -I rendering_child.py PAGE LOCK_DESCRIPTOR PARENT_PID MEMORY_MIB SECONDS``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

CACHE_BYTES = 512 * 2**20
"""Above this size, the least recently used pages are removed."""
_LOCK_LIFETIME_S = 7 * 86400
_CONTENT_SECURITY_POLICY = "default-src 'none'; img-src data:; media-src data:; font-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"
_TEMPLATE = f"""\
{{%- extends 'lab/index.html.j2' -%}}
{{%- block html_head_js -%}}<meta http-equiv="Content-Security-Policy" content="{_CONTENT_SECURITY_POLICY}" />{{%- endblock -%}}
{{%- block jupyter_widgets -%}}{{%- endblock -%}}
{{%- block html_head_js_mathjax -%}}{{%- endblock -%}}
{{%- block html_head_js_mermaidjs -%}}{{%- endblock -%}}
{{%- block footer -%}}</html>{{%- endblock -%}}
"""
_DISPLAYED = ("text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain")
_ACTIVE = re.compile(
    r"<script\b[^>]*>.*?(?:</script\b[^>]*>|\Z)|</?(?:script|meta|base|iframe|frame|object|embed|link)\b[^>]*>", re.I | re.S
)


def main() -> int:
    """Render the page named in the arguments; return the exit status."""
    page, lock = Path(sys.argv[1]), int(sys.argv[2])
    parent, memory_mb, seconds = (int(argument) for argument in sys.argv[3:6])
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from lossi import processes

    size = memory_mb * 2**20
    processes.confine(parent, parent_signal=signal.SIGKILL, memory_bytes=size, cpu_s=seconds, file_bytes=size)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    from lossi.errors import InvalidInput, LossiError, NotSupported, Unavailable

    try:
        _make(page)
    except LossiError as error:
        problem = error
    except ModuleNotFoundError as error:
        problem = Unavailable("notebooks cannot be rendered here", why=str(error), hint="install nbconvert next to Lossi")
    except (MemoryError, ImportError, SystemError):  # out of memory while libraries load raises either of the latter
        problem = NotSupported(
            "the notebook could not be rendered",
            why=f"it needs more than {memory_mb} MiB of memory",
            hint="clear large outputs in the notebook, or raise render_limit_mb in the settings",
        )
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        problem = InvalidInput("the notebook could not be rendered", why=why, hint="open it in Jupyter and save it again")
    else:
        os.ftruncate(lock, 0)
        _trim(page.parent)
        return 0
    from lossi.files import atomic

    report = {"kind": type(problem).__name__, "what": problem.what, "why": problem.why, "hint": problem.hint}
    atomic.write(page.with_suffix(".problem"), json.dumps(report).encode(), mode=0o600)
    os.ftruncate(lock, 0)
    return 1


def _make(page: Path) -> None:
    from lossi.errors import Unavailable
    from lossi.files import atomic
    from lossi.notebooks import document

    content = sys.stdin.buffer.read()
    if hashlib.sha256(content).hexdigest() != page.stem:
        raise Unavailable("the notebook changed while it was being read", hint="try again")
    notebook = document.parse(content)
    del content
    atomic.write(page, html(notebook.data, notebook.title or "Notebook").encode("utf-8", "replace"), mode=0o600)


def html(data: dict[str, Any], title: str) -> str:
    """Return a notebook as one HTML page without scripts or external resources."""
    import jinja2
    from nbconvert.exporters import HTMLExporter
    from nbformat.v4.nbjson import JSONReader
    from traitlets.config import Config

    class Exporter(HTMLExporter):  # type: ignore[misc]
        @jinja2.pass_context
        def markdown2html(self, context: Any, source: str) -> str:
            return _inert(super().markdown2html(context, source))

    notebook = JSONReader().to_notebook(_prepared(data))
    notebook.metadata.title = title
    exporter = Exporter(
        config=Config({"NbConvertBase": {"display_data_priority": list(_DISPLAYED)}}),
        extra_loaders=[jinja2.DictLoader({"lossi.html.j2": _TEMPLATE})],
        template_file="lossi.html.j2",
    )
    text, _ = exporter.from_notebook_node(notebook)
    return str(text)


def _prepared(data: dict[str, Any]) -> dict[str, Any]:
    """Add what nbconvert expects in every notebook, and make HTML outputs inert."""
    data.setdefault("nbformat_minor", 4)
    data.setdefault("metadata", {}).pop("widgets", None)
    for cell in data["cells"]:
        cell.setdefault("metadata", {})
        if cell["cell_type"] == "code":
            cell.setdefault("execution_count", None)
            for output in cell.setdefault("outputs", []):
                content = output.get("data")
                if isinstance(content, dict) and "text/html" in content:
                    markup = content["text/html"]
                    content["text/html"] = _inert("".join(markup) if isinstance(markup, list) else str(markup))
    return data


def _inert(text: str) -> str:
    """Remove elements that load or run anything.

    The page's own policy forbids all of it anyway, except a redirection. Each output by itself, so that a script that is never
    closed does not swallow the others.
    """
    while True:
        text, removed = _ACTIVE.subn("", text)
        if not removed:
            return text


def _trim(folder: Path) -> None:
    """Remove the pages used longest ago from a cache that has grown too large, and locks that nobody can hold any more."""
    entries = []
    for path in folder.iterdir():
        try:
            status = path.stat()
        except OSError:
            continue
        if path.suffix == ".lock" and time.time() - status.st_mtime > _LOCK_LIFETIME_S:
            path.unlink(missing_ok=True)
        entries.append((status.st_mtime, status.st_size, path))
    kept = 0
    for _, size, path in sorted(entries, reverse=True):
        kept += size
        if kept > CACHE_BYTES and path.suffix == ".html":
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
