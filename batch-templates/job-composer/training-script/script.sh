#!/bin/bash
#SBATCH --job-name=training-script
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=2G
#SBATCH --time=00:30:00
#SBATCH --output=%x-%j.log
# Runs the script once, in this job, as a tracked run. For a GPU add the line `#SBATCH --gpus-per-node=1` above and `--gpus 1` below.
set -eu
environment=sklearn # see: lossi env list

if ! command -v lossi >/dev/null 2>&1; then
    echo "lossi: command not found on $(uname -n): load its module or add it to PATH above this line, or ask the site to install it." >&2
    exit 127
fi
lossi project init .
exec lossi run --here --project . -e "$environment" -c "$SLURM_CPUS_PER_TASK" \
    train.py -p complexity=2 -p steps=8
