"""The door through Slurm's own commands: sbatch, squeue, sacct, scontrol, scancel, sinfo, sacctmgr. The default.

`commands` says what to run and reads what it printed, `client` puts it together. Works with Slurm 20.11 to 26.05: only fields that all of these have are asked for.
"""

from __future__ import annotations

from lossi.jobs.schedulers.slurm.cli.client import CliClient

__all__ = ["CliClient"]
