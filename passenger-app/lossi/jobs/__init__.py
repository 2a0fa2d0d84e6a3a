"""Jobs: from a request to a job directory, a submission, and the state of each task.

Reads and writes ``<project>/.lossi/jobs`` and the tables ``jobs`` and ``tasks`` of the index; asks schedulers through the port in
`schedulers`. Each part loads when it is first used, because most commands need only one of them.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
