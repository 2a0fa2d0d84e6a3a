#!/bin/bash
#SBATCH --job-name=notebook-sweep
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.log
# Runs the notebook for each combination of parameters, as many at a time as this job has cores and memory for, and compares the
# runs at the end. For a sweep larger than one node, run the same command without --here on a login node: each combination is
# then a task in the queue. More options: lossi sweep --help
set -eu
environment=sklearn # see: lossi env list

if ! command -v lossi >/dev/null 2>&1; then
    echo "lossi: command not found on $(uname -n): load its module or add it to PATH above this line, or ask the site to install it." >&2
    exit 127
fi
lossi project init .
exec lossi sweep --here --project . -e "$environment" -c 1 -m 1500M --order-by "metrics.accuracy DESC" \
    train.ipynb -g complexity=0.3,1,3 -g seed=0,1
