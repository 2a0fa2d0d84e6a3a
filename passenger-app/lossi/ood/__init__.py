"""What Open OnDemand's apps ask of Lossi: their forms, the check of what a form sent, and what a session starts on its node.

The apps' own files (``ood-apps/``) are Ruby templates and shell scripts that decide nothing: ``python -m lossi.ood`` answers them.
It reads catalogue, site file and settings, and writes only the form's file (at installation) and, in the folder of a session, what
its job starts. It starts nothing but what resolving an environment does.
"""
