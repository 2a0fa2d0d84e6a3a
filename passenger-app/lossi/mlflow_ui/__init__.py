"""MLflow's own pages on a project's store: as a job behind a secret, or as an app of the portal.

Room: mlflow_ui. A program of its own, run by an environment that has Lossi and MLflow; the portal's web process never imports
it. Reads a project's ``.lossi`` and, under the lease of the ingest, lets MLflow write to ``.lossi/mlflow.db``; everything else is
shown from a copy.
"""
