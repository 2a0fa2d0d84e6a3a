"""The client over Slurm's commands: sbatch, squeue, sacct, scontrol, scancel, sinfo, sacctmgr. The default.

`commands` has the argv and the parser of each command. Works with Slurm 20.11 to 26.05: only fields that all of them have are used.
"""

from __future__ import annotations

from lossi.jobs.schedulers.slurm.cli.client import CliClient

__all__ = ["CliClient"]
