"""Rendered notebooks cannot act in the portal's origin."""

from __future__ import annotations

import json

from flask.testing import FlaskClient

from lossi import projects


def test_script_of_a_notebook_has_no_origin(client: FlaskClient, project: projects.Project) -> None:
    notebook = json.loads((project.root / "train.ipynb").read_text())
    notebook["cells"].append(
        {
            "cell_type": "code",
            "id": "evil",
            "metadata": {},
            "source": "",
            "execution_count": 1,
            "outputs": [
                {"output_type": "display_data", "metadata": {}, "data": {"text/html": "<script>fetch('/api/v1/jobs')</script>"}}
            ],
        }
    )
    (project.root / "train.ipynb").write_text(json.dumps(notebook))
    answer = client.get("/api/v1/notebooks/render", query_string={"path": "train.ipynb"})
    for _ in range(100):
        if answer.status_code != 202:
            break
        answer = client.get("/api/v1/notebooks/render", query_string={"path": "train.ipynb"})
    assert answer.status_code == 200, answer.get_data(as_text=True)[:500]
    policy = answer.headers["Content-Security-Policy"]
    assert "sandbox" in policy and "allow-same-origin" not in policy and "allow-scripts" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
