#!/bin/sh
# Started by the scheduler once per task of a Lossi job. Only the next lines differ between jobs.
lossi_job_id=01aryz6s41tsv4rrffq69g5fav
lossi_directory=/work/p/.lossi/jobs/x
lossi_tasks=12
lossi_nodes=1
lossi_kind=local
lossi_scratch=''
lossi_setup=0
set -- /opt/venv/bin/python /work/p/.lossi/jobs/x/runner.pyz run --job /work/p/.lossi/jobs/x
