"""v0.0.41: served by Slurm 24.05 and later. Against v0.0.42, a submission's answer has `result` next to `job_id`, jobs in the
database have no `restart_cnt` and a quality of service not its group limits on submitted jobs and TRES minutes; against v0.0.40,
`job_resources` has another form. Requests are the same, and what is missing stays unknown.
"""

from __future__ import annotations

from lossi.jobs.schedulers.slurm.rest import v0_0_42


class Api(v0_0_42.Api):
    """API v0.0.41."""

    version = "v0.0.41"
