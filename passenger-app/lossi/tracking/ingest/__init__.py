"""Ingest: merges the stores that tasks publish into the project's store. Start with `entry`; `merge` has the order of a merge."""
