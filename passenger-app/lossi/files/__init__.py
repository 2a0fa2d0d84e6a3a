"""Files of users: allowed roots, race-free opening, tails, download headers, neutral text, atomic writing, permissions.

Touches whatever path it is given and nothing of its own; knows nothing of projects, jobs or runs.
"""
