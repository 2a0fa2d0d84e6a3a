"""The files of a job directory: what prepares, runs, watches and ingests a job agree on. Python 3.9, standard library."""
