"""What Open OnDemand's apps need of Lossi: their forms, the check of a submitted form, and what a session starts on its node.

The apps' own files (``ood-apps/``) are Ruby templates and shell scripts that decide nothing and call ``python -m lossi.ood``.
It reads catalogue, site file and settings. It writes a form's file on installation and, in a session's folder, what the job
starts. It starts no process except to resolve an environment.
"""
