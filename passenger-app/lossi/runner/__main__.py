"""``python -m lossi.runner``, and the entry of ``runner.pyz``."""

from lossi.runner.main import main

raise SystemExit(main())
