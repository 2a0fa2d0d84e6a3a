# The public names of this room; `__init__.py` loads each when it is first used.
from . import (
    images as images,
)
from . import (
    interpreter as interpreter,
)
from . import (
    kernelspec as kernelspec,
)
from .catalog import (
    Catalog as Catalog,
)
from .catalog import (
    load as load,
)
from .catalog import (
    project_file as project_file,
)
from .catalog import (
    shipped_file as shipped_file,
)
from .catalog import (
    user_file as user_file,
)
from .checking import (
    MLFLOW_VERSION as MLFLOW_VERSION,
)
from .checking import (
    Check as Check,
)
from .checking import (
    check as check,
)
from .command import (
    bind as bind,
)
from .command import (
    bind_options as bind_options,
)
from .command import (
    clean_environment as clean_environment,
)
from .command import (
    command as command,
)
from .command import (
    runtime as runtime,
)
from .models import (
    ACCELERATORS as ACCELERATORS,
)
from .models import (
    ARCHITECTURES as ARCHITECTURES,
)
from .models import (
    Environment as Environment,
)
from .models import (
    Mount as Mount,
)
from .models import (
    Problem as Problem,
)
from .models import (
    Variant as Variant,
)
from .models import (
    Way as Way,
)
from .models import (
    schema as schema,
)
from .own import add as add
from .resolution import (
    TARGETS as TARGETS,
)
from .resolution import (
    cache_key as cache_key,
)
from .resolution import (
    facts as facts,
)
from .resolution import (
    lacking as lacking,
)
from .resolution import (
    resolve as resolve,
)
from .resolution import (
    ways as ways,
)
