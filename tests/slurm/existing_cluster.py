"""A site's own cluster for the tests, named by environment variables.

LOSSI_TEST_CLUSTER=1 (with sbatch on PATH) or LOSSI_TEST_SLURM_CONF=/path/to/slurm.conf names an existing cluster;
LOSSI_TEST_PARTITION, LOSSI_TEST_GPU_PARTITION, LOSSI_TEST_ACCOUNT say what to use there (unset: the cluster's defaults; no GPUs);
LOSSI_TEST_PROJECTS is a folder that its nodes see (unset: ~/lossi-tests).
"""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from pathlib import Path

import host
from real_cluster import RealCluster


class ExistingCluster(RealCluster):
    """A site's cluster, used as the current user."""

    @classmethod
    def from_environment(cls) -> ExistingCluster:
        variable = host.ENVIRONMENT.get
        projects = Path(variable("LOSSI_TEST_PROJECTS") or Path(pwd.getpwuid(os.geteuid()).pw_dir) / "lossi-tests")
        projects.mkdir(parents=True, exist_ok=True)
        conf = variable("LOSSI_TEST_SLURM_CONF") or variable("SLURM_CONF")
        configuration = subprocess.run(
            ["scontrol", "show", "config"],
            env={**host.ENVIRONMENT, **({"SLURM_CONF": conf} if conf else {})},
            capture_output=True,
            text=True,
        )
        return cls(
            conf=Path(conf) if conf else None,
            users=(pwd.getpwuid(os.geteuid()).pw_name,),
            projects=Path(tempfile.mkdtemp(prefix="session-", dir=projects)),
            partition=variable("LOSSI_TEST_PARTITION"),
            gpu_partition=variable("LOSSI_TEST_GPU_PARTITION"),
            account=variable("LOSSI_TEST_ACCOUNT"),
            accounting="accounting_storage/slurmdbd" in configuration.stdout,
        )

    def environment(self) -> dict[str, str]:
        # A module system may have said where the commands are.
        return {**super().environment(), "PATH": host.PATH}
