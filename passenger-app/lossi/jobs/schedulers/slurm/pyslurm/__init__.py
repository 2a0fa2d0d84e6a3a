"""The client over PySlurm, which runs in another interpreter as a child process and is never imported here."""

from lossi.jobs.schedulers.slurm.pyslurm.client import PySlurmClient

__all__ = ["PySlurmClient"]
