"""The start of the copy in a session's folder, where this package is not installed."""

import os
import runpy
import sys

sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
runpy.run_module("jupyter_node.session", run_name="__main__", alter_sys=True)
