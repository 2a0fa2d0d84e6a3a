"""What executes on the compute node: standard library plus what the image has (papermill, mlflow).

Packed into ``runner.pyz`` in every job directory. Runs on Python 3.9 and later. Other rooms import only `records`
and `archive` (which packs this package).
"""
