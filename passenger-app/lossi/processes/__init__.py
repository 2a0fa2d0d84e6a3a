"""Child processes and the identity of a process: one way for all rooms to start, limit and end what they run.

Programs are argv lists, never a shell; each gets the environment that its caller passes and nothing else, and a session of its own, so
that it can be ended with all that it started. Linux only; knows no other room. The runner has its own, because it travels alone.
"""

from lossi.processes.children import (
    MOST_BYTES,
    MOST_ERROR_BYTES,
    PR_SET_PDEATHSIG,
    Finished,
    LimitReached,
    OutputLimitReached,
    TimeLimitReached,
    confine,
    kill,
    last_line,
    run,
    running,
    start,
)
from lossi.processes.identity import (
    BOOT_ID_FILE,
    Process,
    ProcessIdentity,
    User,
    alive,
    basic_environment,
    boot_id,
    inspect,
    open_pidfd,
    user,
)

__all__ = [
    "BOOT_ID_FILE",
    "MOST_BYTES",
    "MOST_ERROR_BYTES",
    "PR_SET_PDEATHSIG",
    "Finished",
    "LimitReached",
    "OutputLimitReached",
    "Process",
    "ProcessIdentity",
    "TimeLimitReached",
    "User",
    "alive",
    "basic_environment",
    "boot_id",
    "confine",
    "inspect",
    "kill",
    "last_line",
    "open_pidfd",
    "run",
    "running",
    "start",
    "user",
]
