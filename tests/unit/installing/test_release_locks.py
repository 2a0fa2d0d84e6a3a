"""A release carries the wheels for every patch release of the Python that it is made for."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

TREE = Path(__file__).parents[3]
_spec = importlib.util.spec_from_file_location("locks", TREE / "release" / "locks.py")
assert _spec is not None and _spec.loader is not None
locks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(locks)

LOCK = """\
always==1 \\
    --hash=sha256:aa
both==1 ; python_full_version < '3.11.5' \\
    --hash=sha256:bb
both==2 ; python_full_version >= '3.11.5' \\
    --hash=sha256:cc \\
    --hash=sha256:dd
never==1 ; sys_platform == 'nowhere' \\
    --hash=sha256:ee
"""


def names(text: str) -> list[str]:
    return re.findall(r"(?m)^([a-z0-9-]+(?:\[[a-z,]+\])?==\S+)", text)


def test_what_depends_on_the_patch_release_is_in_lists_of_its_own() -> None:
    old, new = locks.split(LOCK, "3.11")
    assert names(old) == ["always==1", "both==1"]
    assert names(new) == ["always==1", "both==2"]
    assert new.endswith("both==2 \\\n    --hash=sha256:cc \\\n    --hash=sha256:dd\n")
    assert [names(text) for text in locks.split(LOCK, "3.13")] == [["always==1", "both==2"]]


def test_the_lock_of_the_tree_is_understood_whole() -> None:
    lock = (TREE / "requirements" / "run.lock").read_text("utf-8")
    version = "{}.{}".format(*sys.version_info[:2])
    for text in locks.split(lock, version):
        assert ";" not in text
        packages = [name.partition("==")[0] for name in names(text)]
        assert {"typer", "pydantic", "mlflow"} <= set(packages)
        assert len(packages) == len(set(packages))
        assert text.count("--hash=") >= len(packages)
