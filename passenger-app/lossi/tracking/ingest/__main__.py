"""``python -m lossi.tracking.ingest --project PATH [--budget S]``: ingest from outside; the report is a line of JSON."""

import sys

from lossi.tracking.ingest.ingestion import main

sys.exit(main())
