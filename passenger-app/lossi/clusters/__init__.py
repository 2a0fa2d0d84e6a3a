"""Clusters: which exist, how to reach their schedulers, what the site offers on them.

Reads OOD's ``clusters.d`` and the section ``clusters`` of the site file; never contacts a scheduler and knows nothing of jobs.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
