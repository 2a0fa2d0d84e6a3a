# The public names of this room; `__init__.py` loads each when it is first used.
from . import (
    images as images,
    interpreter as interpreter,
    kernelspec as kernelspec,
)
from .catalog import (
    Catalog as Catalog,
    load as load,
    shipped_file as shipped_file,
    user_file as user_file,
)
from .checking import (
    MLFLOW_VERSION as MLFLOW_VERSION,
    Check as Check,
    check as check,
)
from .command import (
    bind as bind,
    bind_options as bind_options,
    clean_environment as clean_environment,
    command as command,
    runtime as runtime,
)
from .models import (
    Environment as Environment,
    Mount as Mount,
    Problem as Problem,
    Variant as Variant,
    Way as Way,
    schema as schema,
)
from .own import add as add
from .resolution import (
    cache_key as cache_key,
    lacking as lacking,
    resolve as resolve,
    ways as ways,
)
