"""The web application on a real project, without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from lossi import projects
from lossi.api import security
from lossi.app import create_app

TOKEN = "t" * 43


def notebook(source: str = "x: int = 1  # a number", *more: str) -> dict[str, Any]:
    """Return a notebook whose first cell is its parameters."""
    cells = [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "metadata": {"tags": ["parameters"]} if number == 0 else {},
            "source": text,
            "outputs": [],
            "execution_count": None,
        }
        for number, text in enumerate((source, *more))
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}


@pytest.fixture
def project(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> projects.Project:
    monkeypatch.setenv("LOSSI_ALLOW_LOCAL_SCHEDULER", "true")
    folder = tmp_path / "digits"
    folder.mkdir()
    (folder / "train.ipynb").write_text(json.dumps(notebook()))
    return projects.init(folder)


@pytest.fixture
def auth(home: Path) -> security.AuthMode:
    return security.AuthMode(secret="s" * 32, token=TOKEN)


@pytest.fixture
def client(project: projects.Project, auth: security.AuthMode) -> Iterator[FlaskClient]:
    """A client with the token."""
    app = create_app(auth, project=project)
    with app.test_client() as client:
        client.environ_base.update({"HTTP_AUTHORIZATION": f"Bearer {TOKEN}", "HTTP_HOST": "127.0.0.1:8477"})
        yield client
