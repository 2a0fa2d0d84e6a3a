"""Runs: ingest them from the tasks' stores, search, compare, draw and export them.

Reads and (only in ingest) writes ``<project>/.lossi/mlflow.db``; reads the job directories and the index; never imports mlflow.
Every public name is imported when first used.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
