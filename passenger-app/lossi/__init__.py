"""Lossi carries machine-learning work between the notebook and the supercomputer, inside Open OnDemand."""

__version__ = "0.1.0"
