# The public names of this room; `__init__.py` loads each when it is first used.
from . import schedulers as schedulers
from .explain.advice import JobAdvice as JobAdvice
from .explain.diagnose import JobDiagnosis as JobDiagnosis, TaskExplanation as TaskExplanation
from .explain.explanations import (
    advise as advise,
    explain as explain,
    explain_task as explain_task,
)
from .explain.pending_reasons import explain_briefly as explain_briefly
from .explain.queue_waits import QueueWaits as QueueWaits, queue_waits as queue_waits
from .models import (
    Job as Job,
    Page as Page,
    Preview as Preview,
    Task as Task,
)
from .resources import Resources as Resources
from .state.queries import (
    get as get,
    list_jobs as list_jobs,
    log as log,
    output_notebook as output_notebook,
    progress as progress,
    task as task,
    tasks as tasks,
)
from .state.recent import recent as recent
from .state.refresh import (
    rebuild as rebuild,
    reconcile as reconcile,
    refresh as refresh,
)
from .submit.control import cancel as cancel, resubmit as resubmit
from .submit.spec import JobSpec as JobSpec, validated as validated
from .submit.submission import preview as preview, submit as submit
