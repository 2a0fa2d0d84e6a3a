"""Putting the bundle in place on a portal's host: what there would be to write (`planning`), and the writing of it (`doing`).

Everything of a version lies in one folder of its own, ``HOME/versions/NAME``; what Open OnDemand looks at are links that lead
there through ``HOME/current``. So an upgrade or a rollback is the renaming of one link, a running portal or session keeps the files
it was started from, and a folder or file that is not such a link belongs to somebody else and is never touched.
Touches nothing but that home, those links and the folders that had to be made for them.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
