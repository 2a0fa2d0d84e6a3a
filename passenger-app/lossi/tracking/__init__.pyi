# The public names of this room; `__init__.py` loads each when it is first used.
from .ingest.catching_up import catch_up as catch_up
from .ingest.ingestion import IngestReport as IngestReport
from .ingest.ingestion import ingest_runs as ingest_runs
from .ingest.lease import (
    BEAT_S as BEAT_S,
)
from .ingest.lease import (
    STALE_S as STALE_S,
)
from .ingest.lease import (
    Lease as Lease,
)
from .ingest.lease import (
    LeaseLost as LeaseLost,
)
from .ingest.lease import (
    acquire_lease as acquire_lease,
)
from .query.artifacts import artifacts as artifacts
from .query.artifacts import open_artifact as open_artifact
from .query.comparison import compare as compare
from .query.exports import export as export
from .query.histories import history as history
from .query.models import (
    Comparison as Comparison,
)
from .query.models import (
    Experiment as Experiment,
)
from .query.models import (
    Experiments as Experiments,
)
from .query.models import (
    Histories as Histories,
)
from .query.models import (
    RunDetail as RunDetail,
)
from .query.models import (
    RunTable as RunTable,
)
from .query.models import (
    View as View,
)
from .query.runs import (
    experiments as experiments,
)
from .query.runs import (
    list_experiments as list_experiments,
)
from .query.runs import (
    resolve as resolve,
)
from .query.runs import (
    run as run,
)
from .query.search import search as search
