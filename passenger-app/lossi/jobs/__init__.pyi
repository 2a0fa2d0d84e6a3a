# The public names of this room; `__init__.py` loads each when it is first used.
from . import schedulers as schedulers
from .explain.advice import JobAdvice as JobAdvice
from .explain.amounts import duration_text as duration_text
from .explain.amounts import memory_text as memory_text
from .explain.diagnoses import JobDiagnosis as JobDiagnosis
from .explain.diagnoses import TaskExplanation as TaskExplanation
from .explain.explanations import (
    advise as advise,
)
from .explain.explanations import (
    explain as explain,
)
from .explain.explanations import (
    explain_task as explain_task,
)
from .explain.pending_reasons import explain_pending as explain_pending
from .explain.queue_waits import QueueWaits as QueueWaits
from .explain.queue_waits import queue_waits as queue_waits
from .models import (
    Job as Job,
)
from .models import (
    JobDefinition as JobDefinition,
)
from .models import (
    Page as Page,
)
from .models import (
    Preview as Preview,
)
from .models import (
    Task as Task,
)
from .resources import (
    Resources as Resources,
)
from .resources import (
    parse_memory as parse_memory,
)
from .resources import (
    parse_time as parse_time,
)
from .state.queries import (
    get as get,
)
from .state.queries import (
    list_jobs as list_jobs,
)
from .state.queries import (
    log as log,
)
from .state.queries import (
    output_notebook as output_notebook,
)
from .state.queries import (
    progress as progress,
)
from .state.queries import (
    task as task,
)
from .state.queries import (
    tasks as tasks,
)
from .state.recent import recent as recent
from .state.refresh import (
    rebuild as rebuild,
)
from .state.refresh import (
    reconcile as reconcile,
)
from .state.refresh import (
    refresh as refresh,
)
from .submit.control import cancel as cancel
from .submit.control import resubmit as resubmit
from .submit.spec import JobSpec as JobSpec
from .submit.spec import validated as validated
from .submit.submission import preview as preview
from .submit.submission import submit as submit
