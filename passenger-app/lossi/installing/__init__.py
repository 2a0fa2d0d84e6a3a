"""Installs the bundle on a portal's host: `planning` works out a version's files and the difference, `versions` writes them.

A version is one folder, ``HOME/versions/NAME``. Open OnDemand finds links that lead there through ``HOME/current``. So an upgrade
or a rollback renames one link, a running portal or session keeps the files it was started from, and a folder or file that is
not such a link belongs to somebody else and is never touched. Touches only that home, those links and the folders made for them.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
