#!/bin/sh
# Started by the scheduler once per task of a Lossi job. Only the next lines differ between jobs.
lossi_job_id=01aryz6s41tsv4rrffq69g5fav
lossi_directory=/work/p/.lossi/jobs/x
lossi_tasks=1
lossi_nodes=4
lossi_kind=local
lossi_scratch='/run/nvme/job_$SLURM_JOB_ID/$USER'"'"'s'
lossi_setup=2
site_setup() {
    set_up 'module load apptainer' || return
    set_up 'export NCCL_SOCKET_IFNAME='"'"'hsn'"'"' # it'"'"'s ours' || return
}
set -- python3 runner.pyz run
