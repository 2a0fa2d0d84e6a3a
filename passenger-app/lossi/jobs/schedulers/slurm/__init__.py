"""Slurm behind the port: one adapter, and three doors to the cluster (commands, slurmrestd, PySlurm) of the same shape."""
