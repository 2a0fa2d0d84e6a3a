"""A kernel that `lossi env kernelspec` registered, started by a Jupyter that knows nothing of Lossi."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from built_environment import BuiltEnvironment
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from lossi.cli import main


@pytest.mark.slow
def test_a_registered_kernel_runs_in_the_image_and_can_be_interrupted(
    built_environment: BuiltEnvironment, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = built_environment.catalog(tmp_path / "catalog.yml")
    (home / "no-site.yml").write_text(yaml.safe_dump({"catalogs": [str(catalog)]}))
    with pytest.raises(SystemExit) as ended:
        main(["env", "kernelspec", "sklearn", "--prefix", str(tmp_path), "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["folder"] == str(tmp_path / "share/jupyter/kernels/lossi-sklearn")
    folder = tmp_path / "note's $(books)"
    folder.mkdir()
    kernels = KernelSpecManager(kernel_dirs=[str(tmp_path / "share" / "jupyter" / "kernels")])
    manager = KernelManager(
        kernel_name="lossi-sklearn", kernel_spec_manager=kernels, connection_file=str(tmp_path / "runtime.json")
    )
    manager.start_kernel(cwd=str(folder))
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        outputs: list[str] = []

        def hook(message: dict[str, object]) -> None:
            content = message["content"]
            assert isinstance(content, dict)
            outputs.append(content.get("text", "") or content.get("ename", ""))
            if "asleep" in outputs[-1]:
                manager.interrupt_kernel()

        code = "import os, sys, sklearn; print(os.getcwd(), sys.prefix, sklearn.__version__)"
        client.execute_interactive(code, timeout=300, output_hook=hook)
        client.execute_interactive("import time; print('asleep', flush=True); time.sleep(300)", timeout=300, output_hook=hook)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    outputs = [output for output in outputs if output]
    assert outputs[0] == f"{folder} /usr/local 1.9.1\n" and "KeyboardInterrupt" in outputs[-1], outputs
    assert sys.prefix != "/usr/local"
