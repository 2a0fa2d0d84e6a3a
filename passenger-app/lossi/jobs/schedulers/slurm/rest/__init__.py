"""The door slurmrestd: Slurm's REST API by JSON web token over TCP, or by a unix socket as the user.

One module per API version that Debian's packages serve: each says how it differs from its neighbour.
"""

from lossi.jobs.schedulers.slurm.rest.client import RestClient

__all__ = ["RestClient"]
