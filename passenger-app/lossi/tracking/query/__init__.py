"""Queries about runs: search, compare, histories, artifacts, export. Read-only SQL over MLflow's schema."""
