"""The local scheduler: tasks on this machine, under one supervisor per user and host.

Two sides that meet only on disk: the *adapter* (in whatever process submits, asks or cancels) and the *supervisor* (a detached
process that lives as long as its queue). `queue` and `journal` are the files between them.
"""

from lossi.jobs.schedulers.local.adapter import LocalScheduler

__all__ = ["LocalScheduler"]
