#!/bin/sh
#SBATCH --time=60
#SBATCH --array=0-9999%50
# Started by the scheduler once per task of a Lossi job. Only the next lines differ between jobs.
lossi_job_id=01aryz6s41tsv4rrffq69g5fav
lossi_directory='/scratch/it'"'"'s $(here) `now`/50% ?/ä'
lossi_tasks=10000
lossi_nodes=1
lossi_kind=apptainer
lossi_scratch=''
lossi_setup=0
export A='$HOME; "'"'"''
export B='two
lines'
set -- apptainer exec --bind '/scratch/it'"'"'s $(here) `now`/50% ?/ä:/scratch/it'"'"'s $(here) `now`/50% ?/ä' '/images/a b.sif' python3 '/scratch/it'"'"'s $(here) `now`/50% ?/ä/runner.pyz' run --job '/scratch/it'"'"'s $(here) `now`/50% ?/ä'
