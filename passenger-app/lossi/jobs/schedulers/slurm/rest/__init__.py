"""The client over slurmrestd: over TCP with a JSON web token, or over a Unix socket as the user.

One module per API version, which describes how it differs from its neighbour.
"""

from lossi.jobs.schedulers.slurm.rest.client import RestClient

__all__ = ["RestClient"]
