#!/bin/bash
#SBATCH --job-name=mlflow-project
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=2G
#SBATCH --time=00:30:00
#SBATCH --output=%x-%j.log
# Runs the entry point `main` of the MLflow project in this folder (its file MLproject), in this job, as a tracked run. The software
# is that of the catalogue's environment and not one that MLflow would install.
set -eu
environment=sklearn # of the catalogue: lossi env list

if ! command -v lossi >/dev/null 2>&1; then
    echo "There is no command lossi on $(uname -n): load its module or put it on PATH above this line, or ask the site to offer it on compute nodes." >&2
    exit 127
fi
lossi project init .
exec lossi run --here --project . -e "$environment" -c "$SLURM_CPUS_PER_TASK" -n mlflow-project -x mlflow-project \
    -- python3 -m mlflow run . --env-manager local -P complexity=2
