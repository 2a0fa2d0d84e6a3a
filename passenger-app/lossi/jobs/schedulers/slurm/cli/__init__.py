"""The door through Slurm's own commands: sbatch, squeue, sacct, scontrol, scancel, sinfo, sacctmgr. The default.

`process` runs one, `commands` says what to run and reads what it printed, `refusals` turns its words into Lossi's errors and
`client` puts them together. Works with Slurm 20.11 to 26.05: only fields that all of these have are asked for.
"""

from __future__ import annotations

from lossi.jobs.schedulers.slurm.cli.client import CliClient

__all__ = ["CliClient"]
