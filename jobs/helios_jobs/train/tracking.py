"""A stage's run in MLflow, written from a background thread: a slow or absent server never holds up a step."""

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from helios_jobs.curriculum.config import StageConfig
from helios_jobs.data.world import world_digest
from helios_jobs.train.context import JobContext

BATCH = 1000
"""Metrics a request; MLflow's own limit."""

Client = Any
"""An `mlflow.MlflowClient`; MLflow is imported on the tracker's thread, beside the stage's own start."""
Task = Callable[[Client, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """Which run to get or create, and what is true of it from the start.

    Attributes:
        tags: of the run; `helios.job_uid` finds it again after a restart.
        parent_tags: of the curriculum's run above it, found by all of them; empty for a lone job.
        dataset: name of the data the stage learns from, and what decides them: settings and version of the code.
    """

    experiment: str
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    parent_name: str = ""
    parent_tags: Mapping[str, str] = field(default_factory=dict)
    dataset: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Closing:
    """Attributes: run_id: empty where the server was never reached; warning: empty where everything was written."""

    run_id: str
    warning: str


def describe_run(job: JobContext, config: StageConfig, *, world_size: int) -> RunPlan:
    """The run of a stage: child of its curriculum's run, or alone."""
    lineage = job.lineage
    tags = {
        "helios.job_uid": job.uid,
        "helios.job": job.name,
        "helios.tenant": job.tenant,
        "helios.cell": job.cell,
        "helios.curriculum": lineage.curriculum,
        "helios.stage": lineage.stage,
        "helios.parent_bundle": str(lineage.parent_bundle or ""),
        "helios.parent_run_id": lineage.parent_run_id,
        "mlflow.source.git.commit": os.environ.get("HELIOS_GIT_COMMIT", ""),
    }
    parent = {"helios.curriculum_uid": lineage.curriculum_uid, "helios.curriculum_run": str(lineage.run)}
    world = json.dumps({"world": world_digest(), **config.data.model_dump(mode="json")})
    return RunPlan(
        experiment=lineage.curriculum or job.name,
        name=lineage.stage or job.name,
        tags={name: value for name, value in tags.items() if value},
        params={**flat(config.model_dump(mode="json")), "world_size": str(world_size)},
        parent_name=f"{lineage.curriculum}-r{lineage.run}" if lineage.curriculum_uid else "",
        parent_tags=parent if lineage.curriculum_uid else {},
        dataset=("procedural-talking-heads", world),
    )


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names."""
    found: dict[str, str] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": str(value)}
    return found


class Tracker:
    """Buffers what is logged and writes it in order, retrying until `finish`.

    With an empty `uri` everything is a no-op. Work that the server refuses for good (not an outage) is dropped with a
    warning, so that one bad artifact does not hold up the rest.
    """

    def __init__(
        self, uri: str, plan: RunPlan, *, connect: Callable[[str], Client] | None = None, interval: float = 1.0
    ) -> None:
        self._uri = uri
        self._plan = plan
        self._connect = connect or _mlflow_client
        self._interval = interval
        self._lock = threading.Lock()
        self._tasks: deque[tuple[str, Task, threading.Event]] = deque()
        self._metrics: list[tuple[str, float, int, int]] = []
        self._pause = threading.Event()
        self._closing = threading.Event()
        self._warning = ""
        self.run_id = ""
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)
        if uri:
            self._thread.start()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        with self._lock:
            self._metrics += [(name, float(value), now, step) for name, value in values.items()]

    def tags(self, values: Mapping[str, str]) -> None:
        self.submit("tags", lambda client, run_id: _set_tags(client, run_id, values))

    def submit(self, what: str, task: Task) -> threading.Event:
        """Queue work that needs the client and the run's id; the event is set when it was done or refused for good."""
        done = threading.Event()
        with self._lock:
            self._tasks.append((what, task, done))
        return done

    def wait(self, done: threading.Event, timeout: float) -> bool:
        """Whether submitted work was taken within `timeout` seconds."""
        self._pause.set()
        return bool(self._uri) and done.wait(timeout)

    def finish(self, status: str, *, tags: Mapping[str, str] | None = None, timeout: float = 30.0) -> Closing:
        """Write what is buffered and set the run's final `status`, for at most `timeout` seconds."""
        if not self._uri:
            return Closing("", "")
        if tags:
            self.tags(tags)
        self.submit("status", lambda client, run_id: _set_status(client, run_id, status))
        self._closing.set()
        self._pause.set()
        self._thread.join(timeout)
        with self._lock:
            left = len(self._metrics) + len(self._tasks)
        if left:
            self._warn(f"the tracking server did not take {left} records within {timeout:.0f} s: {self._warning}")
        return Closing(self.run_id, self._warning)

    def _run(self) -> None:
        client: Client = None
        pause = self._interval
        while True:
            try:
                client = client or self._connect(self._uri)
                self.run_id = self.run_id or _open_run(client, self._plan)
                self._drain(client)
                pause = self._interval
            except Exception as error:  # noqa: BLE001 - any failure of the server is retried, never the job's failure
                self._warn(f"tracking server {self._uri}: {type(error).__name__}: {str(error)[:200]}")
                pause = min(pause * 2, 10.0)
            if self._closing.is_set() and not (self._tasks or self._metrics) and self.run_id:
                return
            self._pause.wait(pause)
            self._pause.clear()

    def _drain(self, client: Client) -> None:
        from mlflow.entities import Metric

        while True:
            with self._lock:
                batch = self._metrics[:BATCH]
                tasks = [] if batch else list(self._tasks)[:1]
            if batch:
                metrics = [Metric(*entry) for entry in batch]
                self._attempt("metrics", partial(client.log_batch, self.run_id, metrics=metrics))
            for what, task, done in tasks:
                self._attempt(what, partial(task, client, self.run_id))
                done.set()
            if not batch and not tasks:
                return
            with self._lock:
                del self._metrics[: len(batch)]
                for _ in tasks:
                    self._tasks.popleft()

    def _attempt(self, what: str, write: Callable[[], None]) -> None:
        """Write once; only an outage is raised, to be tried again."""
        try:
            write()
        except Exception as error:
            if not _permanent(error):
                raise
            self._warn(f"not recorded: {what}: {str(error)[:200]}")

    def _warn(self, message: str) -> None:
        if message != self._warning:
            print(f"warning: {message}", flush=True)  # noqa: T201 - the job's log is its output
        self._warning = message


def _permanent(error: Exception) -> bool:
    """Whether trying again is useless: the server understood and refused, or the task itself is wrong."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in {"INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST"}
    return isinstance(error, (TypeError, ValueError, LookupError))


def _mlflow_client(uri: str) -> Client:
    """A client that gives up on a request soon; the tracker itself is what tries again."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _open_run(client: Client, plan: RunPlan) -> str:
    """Get or create the stage's run (and its curriculum's above it), mark it running, write what is known."""
    experiment = client.get_experiment_by_name(plan.experiment)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(plan.experiment)
    tags = dict(plan.tags)
    if plan.parent_tags:
        tags["mlflow.parentRunId"], _ = _get_or_create(
            client, experiment_id, plan.parent_name, plan.parent_tags, plan.parent_tags
        )
    run_id, created = _get_or_create(
        client, experiment_id, plan.name, tags, {"helios.job_uid": plan.tags["helios.job_uid"]}
    )
    if created:
        _describe(client, run_id, plan)
    else:
        client.update_run(run_id, status="RUNNING")
    return run_id


def _get_or_create(
    client: Client, experiment_id: str, name: str, tags: Mapping[str, str], identity: Mapping[str, str]
) -> tuple[str, bool]:
    """The oldest run with the tags of `identity`. Two creators at once agree on the older; the younger is deleted."""
    condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())

    def oldest() -> str | None:
        found = client.search_runs([experiment_id], condition, max_results=1, order_by=["attributes.start_time ASC"])
        return str(found[0].info.run_id) if found else None

    if run_id := oldest():
        return run_id, False
    created = client.create_run(experiment_id, tags=dict(tags), run_name=name).info.run_id
    run_id = oldest() or created
    if run_id != created:
        client.delete_run(created)
    return run_id, run_id == created


def _describe(client: Client, run_id: str, plan: RunPlan) -> None:
    import hashlib

    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    client.log_batch(run_id, params=[Param(name, value[:6000]) for name, value in plan.params.items()])
    if plan.dataset:
        name, source = plan.dataset
        digest = hashlib.sha256(source.encode()).hexdigest()[:12]
        dataset = Dataset(name=name, digest=digest, source_type="code", source=source)
        client.log_inputs(run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _set_tags(client: Client, run_id: str, values: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(name, str(value)[:5000]) for name, value in values.items()])


def _set_status(client: Client, run_id: str, status: str) -> None:
    if status == "SCHEDULED":
        client.update_run(run_id, status=status)
    else:
        client.set_terminated(run_id, status)
