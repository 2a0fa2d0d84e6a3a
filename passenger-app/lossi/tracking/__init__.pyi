# The public names of this room; `__init__.py` loads each when it is first used.
from .ingest.background import catch_up as catch_up
from .ingest.entry import ingest_runs as ingest_runs
from .ingest.lease import (
    BEAT_S as BEAT_S,
    STALE_S as STALE_S,
    Lease as Lease,
    LeaseLost as LeaseLost,
    acquire_lease as acquire_lease,
)
from .ingest.progress import IngestReport as IngestReport
from .query.artifacts import artifacts as artifacts, open_artifact as open_artifact
from .query.comparison import compare as compare
from .query.exports import export as export
from .query.histories import history as history
from .query.models import (
    Comparison as Comparison,
    Experiments as Experiments,
    Histories as Histories,
    RunDetail as RunDetail,
    RunTable as RunTable,
    View as View,
)
from .query.runs import (
    list_experiments as list_experiments,
    resolve as resolve,
    run as run,
)
from .query.search import search as search
