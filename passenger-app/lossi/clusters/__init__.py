"""Clusters: which there are, how their scheduler is reached, what the site offers on them.

Reads OOD's ``clusters.d`` and the section ``clusters`` of the site file; asks no scheduler. The room knows nothing of jobs.
The parts load when they are first used.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
