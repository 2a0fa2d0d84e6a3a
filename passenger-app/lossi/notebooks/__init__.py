"""A notebook's parameters, its conversion to a script, and its rendering as HTML.

Reads notebook files and writes only the cache of rendered pages. Nothing of a notebook is run here: text is read with the
standard library, and nbconvert works in a child process with limits.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
