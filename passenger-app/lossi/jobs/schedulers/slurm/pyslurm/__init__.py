"""The door to Slurm through PySlurm, which runs in a child process of its own: another interpreter, never imported here."""

from lossi.jobs.schedulers.slurm.pyslurm.client import PySlurmClient

__all__ = ["PySlurmClient"]
