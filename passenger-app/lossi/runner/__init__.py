"""What runs on the compute node: standard library plus what the image has (papermill, mlflow).

Packed into ``runner.pyz`` in every job directory. Python 3.9 and later. Other rooms import `archive`, which packs this
package.
"""
