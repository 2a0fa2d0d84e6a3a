"""Starts Jupyter on the node, inside the environment: a password, a port that is its own, and the reason if it fails.

`lossi.ood.jupyter` copies this package into the session's folder, where the environment's Python, 3.9 or later, runs it as
``python3 -I jupyter_node FOLDER HOST PORT…``. It imports nothing of Lossi. Secrets are made here and are only in files of mode
0600. The card reads ``status.json``, Jupyter itself `jupyter_config`.
"""
