"""Runs: taken in from the tasks' stores, asked for, compared, drawn, exported.

Reads and (ingest alone) writes ``<project>/.lossi/mlflow.db``; reads the job directories and the index; never imports
mlflow. Everything here is imported when first used: a command that asks one question loads what that question needs.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
