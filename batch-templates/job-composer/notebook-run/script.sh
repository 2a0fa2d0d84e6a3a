#!/bin/bash
#SBATCH --job-name=notebook-run
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=2G
#SBATCH --time=00:30:00
#SBATCH --output=%x-%j.log
# Runs the notebook once, in this job, as a tracked run. More options: lossi run --help
set -eu
environment=sklearn # see: lossi env list

if ! command -v lossi >/dev/null 2>&1; then
    echo "lossi: command not found on $(uname -n): load its module or add it to PATH above this line, or ask the site to install it." >&2
    exit 127
fi
lossi project init .
exec lossi run --here --project . -e "$environment" -c "$SLURM_CPUS_PER_TASK" \
    train.ipynb -p complexity=2
