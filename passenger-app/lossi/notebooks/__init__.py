"""Notebooks: their parameters, conversion to scripts, and rendering to HTML.

Reads notebook files and writes only the cache of rendered pages. Runs no code of a notebook; nbconvert runs in a child process
with limits.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
