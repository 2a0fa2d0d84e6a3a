#!/bin/bash
#SBATCH --job-name=torchrun
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=00:30:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
# Starts train_ddp.py once per node; it becomes torchrun, with one process per GPU. For GPUs add a line such as
# `#SBATCH --gpus-per-node=4` above and set the accelerator below. The run is logged to this folder's store.
set -eu
environment=pytorch # see: lossi env list
accelerator=none    # cuda or rocm

if ! command -v lossi >/dev/null 2>&1; then
    echo "lossi: command not found on $(uname -n): load its module or add it to PATH above this line, or ask the site to install it." >&2
    exit 127
fi
lossi project init .
MASTER_ADDR=$(uname -n) # this script runs on the first node
export MASTER_ADDR environment accelerator
export MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000))
export MLFLOW_TRACKING_URI="sqlite:///$PWD/.lossi/mlflow.db"
export SLURM_EXPORT_ENV=ALL
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
# An environment gets only the variables of the job that are passed here.
# shellcheck disable=SC2016 # each node has its own number
exec srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 sh -c '
    exec lossi exec --project . --accelerator "$accelerator" "$environment" -- env \
        LOSSI_NODES="$SLURM_JOB_NUM_NODES" LOSSI_NODE_RANK="$SLURM_NODEID" LOSSI_OUTPUT_DIR="$PWD" \
        MASTER_ADDR="$MASTER_ADDR" MASTER_PORT="$MASTER_PORT" MLFLOW_TRACKING_URI="$MLFLOW_TRACKING_URI" \
        MLFLOW_EXPERIMENT_NAME="$SLURM_JOB_NAME" python3 train_ddp.py "$@"' train_ddp --epochs 20 "$@"
