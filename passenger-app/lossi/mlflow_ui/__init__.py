"""MLflow's own pages on a project's store: as a job behind a secret, or as an app of the portal.

A program of its own, run by an environment that has Lossi and MLflow; the portal's web process never imports it. Reads a
project's ``.lossi`` and, while it holds the ingest lease, lets MLflow write to ``.lossi/mlflow.db``; any other store is shown
from a copy.
"""
