"""v0.0.40: served by Slurm 23.11 and later. Against v0.0.41, `job_resources` has another form, the database does not have the paths
of output files, and an association's `id` is an object; none of them is used here.
"""

from __future__ import annotations

from lossi.jobs.schedulers.slurm.rest import v0_0_41


class Api(v0_0_41.Api):
    """API v0.0.40."""

    version = "v0.0.40"
