"""What the portal and the runner agree on: the files of a job directory, run statuses, rules for text. Python 3.9, stdlib."""
