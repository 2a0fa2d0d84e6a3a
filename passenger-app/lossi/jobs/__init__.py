"""Jobs: from what is asked for to a job directory, a submission, and the truth about how each task stands.

Touches ``<project>/.lossi/jobs`` and the tables ``jobs`` and ``tasks`` of the index; asks schedulers through the port in
`schedulers`. The parts load when they are first used, because most commands need only one of them.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
