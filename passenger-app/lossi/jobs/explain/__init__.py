"""Why a task died or a job waits, what it used of what it requested, and what to request next time."""
