#!/bin/bash
#SBATCH --job-name=notebook-sweep
#SBATCH --nodes=1
#SBATCH --mem-per-cpu=2G
#SBATCH --output=%x-%j.log
# Runs the notebook for each combination of parameters, as many at a time as this job has cores and memory for, and compares the runs.
set -eu
environment=sklearn # see: lossi env list

if ! command -v lossi >/dev/null 2>&1; then
    echo "lossi: command not found on $(uname -n): load its module or add it to PATH above this line, or ask the site to install it." >&2
    exit 127
fi
lossi project init .
exec lossi sweep --here --project . -e "$environment" -c 1 -m 1500M --order-by "metrics.error ASC" \
    train.ipynb -g penalty=0.1,1,10 -g fold=0,1
