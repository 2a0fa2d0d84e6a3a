"""Ingest: what tasks published is merged into the project's MLflow store, once, whatever happens in between."""
