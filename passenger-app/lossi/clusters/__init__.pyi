# The public names of this room; `__init__.py` loads each when it is first used.
from .exporting import export as export
from .loading import Clusters as Clusters, load as load
from .models import (
    Accelerator as Accelerator,
    AccountPolicy as AccountPolicy,
    Architecture as Architecture,
    Cluster as Cluster,
    GpuType as GpuType,
    Mount as Mount,
    OfferedPartition as OfferedPartition,
    Problem as Problem,
)
from .offering import (
    ClusterOffer as ClusterOffer,
    accelerator_of as accelerator_of,
    architecture_of as architecture_of,
    gpu_hours as gpu_hours,
    gpu_type as gpu_type,
    gpu_types as gpu_types,
    offer as offer,
    offered as offered,
    units as units,
)
from .slurm import PySlurmSettings as PySlurmSettings, RestSettings as RestSettings
from .trust import refuse_open_to_all as refuse_open_to_all
