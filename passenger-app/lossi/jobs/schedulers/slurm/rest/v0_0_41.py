"""v0.0.41: served by Slurm 24.05 and later. Against v0.0.42, a submission's answer has `result` beside `job_id`, jobs in the
database have no `restart_cnt` and a quality of service not its group limits on submitted jobs and TRES minutes; against v0.0.40,
`job_resources` has another form. What is asked is the same, and what is not said stays open.
"""

from __future__ import annotations

from lossi.jobs.schedulers.slurm.rest import v0_0_42


class Api(v0_0_42.Api):
    """How v0.0.41 is spoken."""

    version = "v0.0.41"
