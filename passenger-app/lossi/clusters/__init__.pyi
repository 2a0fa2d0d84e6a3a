# The public names of this room; `__init__.py` loads each when it is first used.
from .exporting import export as export
from .loading import Clusters as Clusters
from .loading import load as load
from .models import (
    Accelerator as Accelerator,
)
from .models import (
    AccountPolicy as AccountPolicy,
)
from .models import (
    Architecture as Architecture,
)
from .models import (
    Cluster as Cluster,
)
from .models import (
    GpuType as GpuType,
)
from .models import (
    Mount as Mount,
)
from .models import (
    OfferedPartition as OfferedPartition,
)
from .models import (
    Problem as Problem,
)
from .models import (
    PySlurmSettings as PySlurmSettings,
)
from .models import (
    RestSettings as RestSettings,
)
from .offering import (
    ClusterOffer as ClusterOffer,
)
from .offering import (
    accelerator_of as accelerator_of,
)
from .offering import (
    architecture_of as architecture_of,
)
from .offering import (
    gpu_hours as gpu_hours,
)
from .offering import (
    gpu_type as gpu_type,
)
from .offering import (
    gpu_types as gpu_types,
)
from .offering import (
    offer as offer,
)
from .offering import (
    offered as offered,
)
from .offering import (
    units as units,
)
from .trust import refuse_open_to_all as refuse_open_to_all
