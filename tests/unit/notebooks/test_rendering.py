from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lossi import notebooks
from lossi.errors import InvalidInput, NotFound, NotSupported, Unavailable
from lossi.notebooks import rendering, rendering_child

PASSENGER_APP = Path(notebooks.__file__).parents[2]


@pytest.fixture
def cache(home: Path) -> Path:
    return home / "cache" / "lossi" / "render"


@pytest.fixture
def outputs(notebook: Any) -> Callable[..., bytes]:
    """Make a notebook with one cell and these outputs."""

    def make(*results: dict[str, Any], source: str = "x", markdown: str = "md:text") -> bytes:
        data = json.loads(notebook(markdown, source))
        data["cells"][1]["outputs"] = list(results)
        return json.dumps(data).encode()

    return make


def shown(media_type: str, content: Any) -> dict[str, Any]:
    return {"output_type": "display_data", "metadata": {}, "data": {media_type: content, "text/plain": "plain text"}}


def slow_notebook(notebook: Any) -> bytes:
    """Return a notebook that takes some seconds."""
    return bytes(notebook(*[f"def f_{number}(a, b=[1, 2, 'x']):\n    return a + b  # comment\n" * 10 for number in range(120)]))


def children(pid: int) -> list[int]:
    """Return the processes whose parent is `pid`."""
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def test_page_shows_text_code_and_outputs(outputs: Any, cache: Path) -> None:
    stream = {"output_type": "stream", "name": "stdout", "text": ["accuracy \x1b[31m0.97\x1b[0m <&>\n"]}
    page = notebooks.render(
        outputs(stream, shown("image/png", "iVBORw0KGgo="), source="print('é漢')", markdown="md:# Digits & more")
    )
    text = page.read_text("utf-8")
    assert page.is_relative_to(cache)
    assert page.stat().st_mode & 0o077 == 0
    for part in (
        "<title>Digits &amp; more</title>",
        "é漢",
        "accuracy",
        "0.97",
        "&lt;&amp;&gt;",
        "data:image/png;base64,iVBORw0KGgo=",
    ):
        assert part in text


def test_page_runs_no_script_and_loads_nothing(outputs: Any, home: Path) -> None:
    hostile = "<SCRIPT src='https://cdn.example/x.js'></SCRIPT ><scr<script>x</script>ipt>fetch('/api/v1/jobs')</script>"
    refresh = "<meta http-equiv=refresh content='0;url=https://evil.example'><base href='https://evil.example'><iframe src='/pun/sys'></iframe>"
    page = notebooks.render(
        outputs(
            shown("text/html", f"<b>bold</b>{hostile}{refresh}<script>var a = 1"),
            shown("application/javascript", "alert(document.cookie)"),
            shown("application/vnd.jupyter.widget-view+json", {"model_id": "1", "version_major": 2}),
            shown("image/svg+xml", "<svg onload='alert(1)'><script>alert(1)</script></svg>"),
            shown("text/markdown", "[x](javascript:alert(1)) <script>alert(1)</script>"),
            markdown=f"md:$x^2$ {hostile} {refresh}",
        )
    )
    head, _, body = page.read_text("utf-8").partition("<body")
    assert "<b>bold</b>" in body
    assert not re.search(r"<(script|meta|base|iframe|link|object|embed)\b", body, re.I)
    assert "<script" not in head
    assert not re.search(r"(src|href)\s*=\s*[\"']?https?:", head, re.I)
    assert not re.search(r"url\(\s*[\"']?https?:|@import", head, re.I)
    policy = re.search(r'<meta content="([^"]+)" http-equiv="Content-Security-Policy"', head)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert "script-src" not in policy[1]
    assert head.index("Content-Security-Policy") < head.index("<style")
    assert body.count("plain text") >= 2


def test_files_of_the_reader_are_not_embedded(saved: Any, tmp_path: Path, home: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret bytes of the reader")
    page = notebooks.render(saved(f"md:![a](secret.png) ![b]({tmp_path}/secret.png) ![c](file://{tmp_path}/secret.png)"))
    text = page.read_text()
    assert "c2VjcmV0IGJ5dGVz" not in text
    assert "secret bytes" not in text


def test_second_time_comes_from_the_cache(saved: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved("x = 1")
    page = notebooks.render(path)
    monkeypatch.setattr(subprocess, "Popen", None)
    with path.open("rb") as stream:
        assert notebooks.render(path) == page == notebooks.render(path.read_bytes()) == notebooks.render(stream)
    monkeypatch.undo()
    assert notebooks.render(saved("x = 2", name="other.ipynb"), cache=cache) != page


def test_cache_of_its_own(notebook: Any, home: Path, tmp_path: Path) -> None:
    assert notebooks.render(notebook("x"), cache=tmp_path / "mine").is_relative_to(tmp_path / "mine")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "not valid JSON"),
        (b"", "empty"),
        (b'{"nbformat": 3}', "old format 3"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "not a notebook"),
    ],
)
def test_rendering_refuses_the_same_files_as_reading(home: Path, content: bytes, says: str) -> None:
    for _ in range(2):  # the second call looks again instead of finding nothing
        with pytest.raises(InvalidInput, match=says) as caught:
            notebooks.render(content)
        assert caught.value.hint


def test_broken_outputs_are_reported(outputs: Any, home: Path) -> None:
    with pytest.raises(InvalidInput, match="could not be rendered") as caught:
        notebooks.render(outputs({"output_type": "display_data", "data": 3, "metadata": {}}))
    assert "\n" not in caught.value.why
    assert "Traceback" not in str(caught.value)


def test_old_minor_formats_and_missing_members_are_rendered(home: Path) -> None:
    cells = [
        {"cell_type": "code", "source": "x = 1"},
        {"cell_type": "markdown", "source": ["a", "b"]},
        {"cell_type": "raw", "source": ""},
    ]
    page = notebooks.render(json.dumps({"nbformat": 4, "cells": cells}).encode())
    assert "ab" in page.read_text()
    assert notebooks.render(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}).encode()).exists()


def test_missing_file_and_cache_that_cannot_be_made(tmp_path: Path, home: Path, notebook: Any) -> None:
    with pytest.raises(NotFound):
        notebooks.render(tmp_path / "no.ipynb")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable) as caught:
        notebooks.render(notebook("x"), cache=tmp_path / "file" / "below")
    assert caught.value.hint


def test_memory_limit_is_reported(notebook: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSI_RENDER_LIMIT_MB", "64")
    with pytest.raises(NotSupported) as caught:
        notebooks.render(notebook("x = 1"))
    assert "memory" in caught.value.why
    assert "render_limit_mb" in caught.value.hint
    monkeypatch.delenv("LOSSI_RENDER_LIMIT_MB")
    assert notebooks.render(notebook("x = 1")).exists()


def test_time_limit_is_reported(notebook: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSI_RENDER_TIMEOUT_S", "1")
    with pytest.raises(NotSupported) as caught:
        notebooks.render(slow_notebook(notebook))
    assert "time" in caught.value.why
    assert children(os.getpid()) == []


def test_caller_need_not_wait(notebook: Any, home: Path) -> None:
    content = notebook("waited = 1")
    with pytest.raises(notebooks.StillRendering):
        notebooks.render(content, wait_s=0.01)
    with pytest.raises(notebooks.StillRendering):  # joins the child that is at work
        notebooks.render(content, wait_s=0.01)
    assert len(children(os.getpid())) == 1
    assert "waited" in notebooks.render(content).read_text()


def test_error_reaches_a_caller_who_did_not_wait(home: Path) -> None:
    with pytest.raises(notebooks.StillRendering):
        notebooks.render(b"{", wait_s=0.01)
    with pytest.raises(InvalidInput):
        notebooks.render(b"{")


def test_two_at_once_make_one_page(notebook: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    popen = subprocess.Popen

    def counted(*arguments: Any, **options: Any) -> Any:
        started.append(1)
        return popen(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", counted)
    pages: list[Path] = []
    threads = [threading.Thread(target=lambda: pages.append(notebooks.render(notebook("at_once = 1")))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pages) == 4
    assert len(set(pages)) == 1
    assert len(started) == 1


def test_child_is_nice_clean_and_dies_with_its_parent(saved: Any, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "slow.ipynb"
    path.write_bytes(slow_notebook(lambda *cells: saved(*cells).read_bytes()))
    code = "import sys; from pathlib import Path; from lossi import notebooks; notebooks.render(Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": str(PASSENGER_APP), "SECRET_KEY_BASE": "geheim", "LD_LIBRARY_PATH": "/nowhere"}
    parent = subprocess.Popen([sys.executable, "-c", code, str(path)], env=environment)
    try:
        child = _wait(lambda: _renderer(parent.pid))
        _wait(lambda: Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[16] == "19")
        variables = dict(entry.split("=", 1) for entry in Path(f"/proc/{child}/environ").read_text().split("\0") if entry)
        assert set(variables) == {"PATH", "HOME", "LANG", "TMPDIR", "JUPYTER_NO_CONFIG", "JUPYTER_PREFER_ENV_PATH"}
        for limit in (rf"Max address space\s+{2048 * 2**20} ", r"Max cpu time\s+120 "):
            _wait(lambda limit=limit: re.search(limit, Path(f"/proc/{child}/limits").read_text()))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        _wait(lambda: not Path(f"/proc/{child}").exists() or "State:\tZ" in Path(f"/proc/{child}/status").read_text())
    finally:
        parent.kill()
        parent.wait()
    with pytest.raises(NotSupported, match="could not be rendered"):
        notebooks.render(path)  # says that the last attempt died, once
    assert notebooks.render(path).exists()


def _renderer(pid: int) -> int | None:
    renderers = [child for child in children(pid) if b"rendering_child" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return renderers[0] if renderers else None


def _wait(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.01)
    raise AssertionError("did not happen within 300 s")


def test_caller_never_imports_jupyter(saved: Any, home: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lossi import notebooks; path = Path(sys.argv[1]);"
        "notebooks.render(path); notebook = notebooks.read(path); notebooks.check_values(notebooks.parameters(notebook), {'a': 2});"
        "notebooks.script(notebook);"
        "print(sorted({'nbformat', 'nbconvert', 'IPython', 'papermill', 'jupyter_core', 'numpy', 'mlflow', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved(("a = 1", "parameters")))],
        env={**os.environ, "PYTHONPATH": str(PASSENGER_APP)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout == "[]\n", done.stderr


def test_cache_keeps_what_was_used_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, name in enumerate(("new.html", "old.html", "older.html", "x.lock")):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (time.time() - age * 1000, time.time() - age * 1000))
    old_lock = tmp_path / "y.lock"
    old_lock.write_bytes(b"")
    os.utime(old_lock, (0, 0))
    monkeypatch.setattr(rendering_child, "CACHE_BYTES", 250)
    rendering_child._trim(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.html", "old.html", "x.lock"]


def test_using_a_page_keeps_it_in_the_cache(notebook: Any, home: Path) -> None:
    page = notebooks.render(notebook("x = 1"))
    os.utime(page, (0, 0))
    notebooks.render(notebook("x = 1"))
    assert page.stat().st_mtime > 0


def test_changed_page_form_invalidates_the_cache(notebook: Any, home: Path) -> None:
    assert notebooks.render(notebook("x = 1")).parent.name == rendering.FORM


@pytest.mark.slow
def test_fifty_megabytes_are_rendered_within_the_limits(notebook: Any, home: Path) -> None:
    data = json.loads(notebook(*["print(1)"] * 250))
    for cell in data["cells"]:
        text = {"output_type": "stream", "name": "stdout", "text": ["line of output\n"] * 4000}
        cell["outputs"] = [text, shown("image/png", "iVBORw0KGgo" * 14000)]
    content = json.dumps(data).encode()
    assert len(content) > 50_000_000
    assert notebooks.render(content).stat().st_size > 40_000_000
