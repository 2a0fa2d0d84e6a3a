#!/bin/bash
#SBATCH --job-name=notebook-sweep
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.log
# Runs the notebook for each combination of parameters, as many at once as this job has cores and memory for, and compares the
# runs at the end. For a sweep that is larger than one node, type the same without --here: each combination is then a task of
# the queue. More options: lossi sweep --help
set -eu
environment=sklearn # of the catalogue: lossi env list

if ! command -v lossi >/dev/null 2>&1; then
    echo "There is no command lossi on $(uname -n): load its module or put it on PATH above this line, or ask the site to offer it on compute nodes." >&2
    exit 127
fi
lossi project init .
exec lossi sweep --here --project . -e "$environment" -c 1 -m 1500M --order-by "metrics.accuracy DESC" \
    train.ipynb -g complexity=0.3,1,3 -g seed=0,1
