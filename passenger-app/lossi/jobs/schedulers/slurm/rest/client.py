"""The client over slurmrestd, in the API version of the server; returns `records` of the user's own jobs only.

No version of the API has slurm.conf's limits (MaxArraySize…), what is enforced, or when a job would start. What a single version
lacks is in its module.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lossi import units
from lossi.clusters import Cluster
from lossi.contract.states import has_ended
from lossi.errors import Forbidden, InvalidInput, LossiError, NotSupported, Unavailable
from lossi.jobs.schedulers.slurm import refusals, states
from lossi.jobs.schedulers.slurm.records import (
    AccountingRow,
    Association,
    Configuration,
    NodeGroup,
    PartitionRow,
    Qos,
    QueueRow,
)
from lossi.jobs.schedulers.slurm.request import SlurmRequest
from lossi.jobs.schedulers.slurm.rest import rows, versions
from lossi.jobs.schedulers.slurm.rest.api import Api
from lossi.jobs.schedulers.slurm.rest.fields import at, epoch, text
from lossi.jobs.schedulers.slurm.rest.transport import Answer, Call, Transport

ENDED = frozenset({2017, 2021})
"""Slurm's error numbers for an unknown job and one that is ending (slurm/slurm_errno.h)."""
MOST_SCRIPT_BYTES = 4 * 2**20
_UNSAID = "Unspecified error"
_POINTER = re.compile(r"\(0x[0-9a-f]+\)")


class RestClient:
    """`SlurmClient` over slurmrestd.

    Parameters
    ----------
    cluster
        With `RestSettings`: url or socket, token, version.
    uid
        Whose jobs: the user of this process; slurmrestd itself identifies the caller by the token or the socket.

    Raises
    ------
    InvalidInput
        If the cluster does not say where slurmrestd is, or has an unsupported version.
    """

    def __init__(self, cluster: Cluster, *, uid: int | None = None) -> None:
        self._cluster = cluster
        self._uid = os.geteuid() if uid is None else uid
        self._transport = Transport(cluster, self._uid)
        named = cluster.rest.version if cluster.rest else None
        self._fixed = versions.named(named) if named else None
        self._slurm_name: str | None = cluster.slurm_name

    @property
    def user(self) -> str:
        """Name of the user."""
        return self._transport.user

    # -- jobs --------------------------------------------------------------------------------------------------------

    def arguments(self, request: SlurmRequest) -> list[str]:
        """Return the request of `submit`: method, URL, body with the script's path instead of its text.

        The server is not asked: if its version is not known yet, the newest is shown.
        """
        api = self._fixed or versions.remembered(self._transport.place) or versions.VERSIONS[0]()
        call = api.submission(request, f"@{request.script}")
        return [call.method, f"{self._transport.place}{call.path}", json.dumps(call.body)]

    def submit(self, request: SlurmRequest) -> int:
        """Submit and return Slurm's id of the job."""
        try:
            with request.script.open("rb") as file:
                script = file.read(MOST_SCRIPT_BYTES + 1)
        except OSError as error:
            raise Unavailable(f"{request.script} cannot be read", why=error.strerror or str(error)) from error
        if len(script) > MOST_SCRIPT_BYTES:
            raise InvalidInput(f"{request.script} is larger than {units.humanize_size(MOST_SCRIPT_BYTES)}")
        api = self._api()
        answer = self._transport.ask(api.submission(request, script.decode("utf-8", errors="surrogateescape")))
        job_id = api.job_id(answer.document)
        if job_id is not None:
            return job_id
        self._check(api, answer)
        # slurmrestd ignores what it does not understand with a warning, and then submits nothing.
        complaints = "; ".join(text(complaint.get("description")) for complaint in rows.listed(answer.document, "warnings") or ())
        raise InvalidInput("Slurm refused the request", why=complaints or "slurmrestd returned no job id")

    def queue(self, *, ended: bool = False) -> list[QueueRow]:
        """Return the user's own jobs in the queue; with ``ended`` also those that ended lately (MinJobAge).

        If slurmrestd cut the list of an array's waiting tasks short, only those that are certainly in it are returned.
        """
        api = self._api()
        jobs = self._list(api, Call(api.slurm(f"jobs{api.slash}")), "jobs")
        own_rows = [api.queue_row(job) for job in jobs if rows.is_own(job, self._uid, self.user)]
        return [row for row in own_rows if ended or not has_ended(states.state_of(row.state))]

    def accounting(self, jobs: Mapping[int, Sequence[int] | None], *, since: str | None = None) -> list[AccountingRow]:
        """Return what the database has of jobs by Slurm's id: all attempts of the given array tasks (None: of all).

        ``since`` leaves out attempts that ended earlier, here and not in the question: slurmdbd would also leave out jobs that
        were never eligible.
        """
        api = self._api()
        if not jobs:
            return []
        rows_of_user: list[AccountingRow] = []
        for call in api.selected(jobs, self._database_cluster(api)):
            rows_of_user += [api.accounting_row(job) for job in self._list(api, call, "jobs") if job.get("user") == self.user]
        kept = [
            row for row in dict.fromkeys(rows_of_user) if _is_asked(row, jobs) and not (since and row.ended and row.ended < since)
        ]
        if not api.accounts_exit_codes and any(_lacks_exit_code(row) for row in kept):
            return rows.with_exit_codes(kept, self.queue(ended=True))
        return kept

    def named(self, prefix: str, since: str) -> list[tuple[int, str]]:
        """Return (id, name) of the user's jobs, in the queue or in the database since a time, whose name begins so."""
        api = self._api()
        in_queue = {row.job_id: row.name for row in self.queue(ended=True) if row.name.startswith(prefix)}
        try:
            recorded = self._recorded(api, since, prefix)
            if not api.filters_users and any(job_id not in in_queue for job_id in recorded):
                # The queue has forgotten the job; its other chunks have names of their own.
                recorded = self._recorded(api, since, "")
        except (Unavailable, NotSupported) as error:
            if not in_queue and isinstance(error, Unavailable):
                raise
            recorded = {}
        return sorted({**{job_id: name for job_id, name in recorded.items() if name.startswith(prefix)}, **in_queue}.items())

    def cancel(self, jobs: Mapping[int, Sequence[int] | None]) -> None:
        """Cancel array tasks (None: the whole job); those that have ended are no error."""
        api = self._api()
        problems: list[LossiError] = []
        for call in api.cancellations(jobs):
            answer = self._transport.ask(call)
            refused = [refusal for refusal in api.refusals(answer.document) if refusal[0] not in ENDED]
            if refused or not answer.document:
                problems.append(self._problem(answer, refused))
        if problems:
            raise problems[0]

    def expected_start(self, request: SlurmRequest) -> tuple[str | None, str]:
        """Raise NotSupported: no version of the API can test a job."""
        raise NotSupported(
            "slurmrestd cannot tell when a job would start", hint="submit it: a waiting job shows when it may start"
        )

    # -- the cluster -------------------------------------------------------------------------------------------------

    def configuration(self) -> Configuration:
        """Return what the API has: version, name, whether there is accounting, whether there are GPUs."""
        api = self._api()
        answer = self._transport.ask(api.ping())
        self._check(api, answer)
        clusters: list[Mapping[str, Any]] | None
        try:
            clusters = self._database_list(api, Call(api.database(f"clusters{api.slash}")), "clusters")
        except Unavailable:
            clusters = []  # a database that does not answer exists
        return Configuration(
            version=text(at(answer.document, "meta", "slurm", "release"))
            or text(at(answer.document, "meta", "Slurm", "release")),
            cluster=self._cluster.slurm_name or _cluster_of(answer.document, clusters or []),
            accounting=clusters is not None,
            gpus=any(group.gpus for group in self.nodes()),
        )

    def partitions(self) -> list[PartitionRow]:
        """Return all partitions that the user may see."""
        api = self._api()
        return [api.partition(item) for item in self._list(api, Call(api.slurm(f"partitions{api.slash}")), "partitions")]

    def nodes(self) -> list[NodeGroup]:
        """Return what kinds of node each partition has."""
        api = self._api()
        return api.node_groups(self._list(api, Call(api.slurm(f"nodes{api.slash}")), "nodes"))

    def associations(self) -> list[Association]:
        """Return which accounts the user may charge; empty where the site keeps no accounts."""
        api = self._api()
        items = self._database_list(api, api.associations_of(self.user), "associations")
        if items is None:
            return []
        name = self._database_cluster(api)
        mine = [api.association(item) for item in items if item.get("user") == self.user]
        return [item for item in mine if not name or item.cluster == name]

    def qos(self) -> list[Qos]:
        """Return all qualities of service; empty where the site keeps none."""
        api = self._api()
        items = self._database_list(api, Call(api.database(f"qos{api.slash}")), "qos", "QOS")
        return [api.quality(item) for item in items or ()]

    # -- asking ------------------------------------------------------------------------------------------------------

    def _api(self) -> Api:
        return self._fixed or versions.agreed(self._transport)

    def _list(self, api: Api, call: Call, *names: str) -> list[Mapping[str, Any]]:
        """Return the objects in the answer to a call."""
        answer = self._transport.ask(call)
        if answer.status == 404 and not answer.document and call.path.startswith("/slurmdb/"):
            raise NotSupported("the site has no accounting database", why="slurmrestd has none")
        self._check(api, answer)
        items = rows.listed(answer.document, *names)
        if items is None:
            raise Unavailable("slurmrestd does not answer", why=f"its answer has no {names[0]}", hint="try again in a minute")
        return items

    def _database_list(self, api: Api, call: Call, *names: str) -> list[Mapping[str, Any]] | None:
        """Return the objects in the answer of the database; None: the site has no database."""
        try:
            return self._list(api, call, *names)
        except NotSupported:
            return None

    def _database_cluster(self, api: Api) -> str:
        """Return the database's name for this cluster: one database may have several with the same ids."""
        if self._slurm_name is None:
            clusters = self._list(api, Call(api.database(f"clusters{api.slash}")), "clusters")
            pinged = self._transport.ask(api.ping())
            self._slurm_name = _cluster_of(pinged.document, clusters)
            if not self._slurm_name and len(clusters) > 1:
                self._slurm_name = None
                raise InvalidInput(
                    "the accounting database has several clusters",
                    hint=f"set slurm_name of {self._cluster.name} to its name there",
                )
        return self._slurm_name

    def _recorded(self, api: Api, since: str, name: str) -> dict[int, str]:
        """Return the names of the user's jobs in the database by id."""
        items = self._list(api, api.named(self.user, epoch(since), name, self._database_cluster(api)), "jobs")
        kept = [api.accounting_row(job) for job in items if job.get("user") == self.user]
        return {row.job_id: row.name for row in kept}

    def _check(self, api: Api, answer: Answer) -> None:
        """Raise the error in an answer."""
        refused = api.refusals(answer.document)
        if answer.status == 404 and not answer.document:
            versions.forget(self._transport.place)
        if refused or not answer.document or answer.status >= 400:
            raise self._problem(answer, refused)

    def _problem(self, answer: Answer, refused: Sequence[tuple[int, str]]) -> LossiError:
        """Return the error for an answer."""
        message = "; ".join(dict.fromkeys(_POINTER.sub("", words) for _, words in refused if words))[: refusals.MOST_WORDS]
        if not message:
            why = f"HTTP {answer.status} {answer.text}".strip()
            if answer.status == 403:
                return Forbidden("Slurm does not allow this", why=why)
            if 400 <= answer.status < 500 and answer.status not in (404, 408, 429):
                return InvalidInput("slurmrestd does not understand the request", why=why)
            return Unavailable("slurmrestd does not answer", why=why, hint="try again in a minute")
        if all(_UNSAID in words for _, words in refused):
            # 22.05 says so if slurmctld does not accept the token, among others.
            return Unavailable("Slurm does not answer", why=message, hint="try again in a minute; a token may have expired")
        if refusals.is_disabled(message):
            return NotSupported("the site has no accounting database", why=message)
        return refusals.error_of("slurmrestd", message, 1)


def _cluster_of(ping: Mapping[str, Any], clusters: Sequence[Mapping[str, Any]]) -> str:
    """Return the cluster's own name, from the server or as the only one of its database."""
    name = text(at(ping, "meta", "slurm", "cluster"))
    return name or (text(clusters[0].get("name")) if len(clusters) == 1 else "")


def _lacks_exit_code(row: AccountingRow) -> bool:
    return row.state == "FAILED" and row.exit_code is None and row.signal is None


def _is_asked(row: AccountingRow, jobs: Mapping[int, Sequence[int] | None]) -> bool:
    """Return whether a row is one of the tasks that were asked for: some answers are whole arrays.

    For a second or two after its start the database has a task under its array's id as if it were a job: it is left out.
    """
    if row.job_id not in jobs:
        return False
    numbers = jobs[row.job_id]
    if numbers is None:
        return True
    return row.task in numbers if row.task is not None else bool(row.tasks) or row.started is None
