"""Prometheus metrics of one process: what they are called, what they count, and who may appear in a label.

Every replica exposes all of them. What only the leader knows (queue, records, agents, GPUs, GPU time) is there on the
leader alone and gone when it leads no more, so that a sum over replicas counts nothing twice.

Labels have few values: names of cells and tenants as their records have them, routes as templates, typed reasons. Names
of jobs, tokens, uids and paths never become a label.
"""

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

REGISTRY = CollectorRegistry()
"""Everything that `render` shows."""
OTHER = "Other"
"""What a label says instead of a value that is none of those it may have."""
MOST_REASONS = 64
MOST_ROUTES = 200
MOST_PENDING = 4096
"""Writes whose delivery is waited for: where nobody watches, older ones are forgotten."""

_Labels = TypeVar("_Labels", bound=tuple[str, ...])
_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_WAITS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 86400.0, 3 * 86400.0)
_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
_REASON = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")

disable_created_metrics()  # type: ignore[no-untyped-call]
ProcessCollector(registry=REGISTRY)

_build = Gauge("helios_build_info", "Version of HELIOS in a label; always 1.", ["version"], registry=REGISTRY)
_build.labels(version("helios-platform")).set(1)
_leader = Gauge("helios_leader", "1 on the replica that runs the controllers, 0 on the others.", registry=REGISTRY)
_records = Gauge("helios_records", "Objects by kind and state.", ["kind", "state"], registry=REGISTRY)
_restarts = Counter(
    "helios_restarts_total",
    "Launches that ended early and were put back into the queue.",
    ["reason"],
    registry=REGISTRY,
)

_queue_depth = Gauge(
    "helios_queue_depth", "Jobs and services that wait for a place.", ["qos", "tenant"], registry=REGISTRY
)
_queue_oldest = Gauge(
    "helios_queue_oldest_seconds",
    "How long the longest waiting of them has waited.",
    ["qos", "tenant"],
    registry=REGISTRY,
)
_queue_wait = Histogram(
    "helios_queue_wait_seconds",
    "From entering the queue to admission.",
    ["qos", "tenant"],
    buckets=_WAITS,
    registry=REGISTRY,
)

_decisions = Counter("helios_scheduler_decisions_total", "Gangs that the scheduler decided on.", registry=REGISTRY)
_decision_time = Histogram(
    "helios_scheduler_decision_duration_seconds",
    "One scheduling pass over the whole queue, from snapshot to decisions.",
    buckets=_FAST,
    registry=REGISTRY,
)
_cycle_time = Histogram(
    "helios_controller_cycle_duration_seconds",
    "One pass of all controllers, writes included.",
    buckets=_FAST,
    registry=REGISTRY,
)

_gpu_seconds = Counter(
    "helios_gpu_seconds_total",
    "GPU-seconds held by allocations, by what they were used for.",
    ["bucket", "tenant", "cell"],
    registry=REGISTRY,
)
_gpus = Gauge(
    "helios_gpus",
    "GPUs of a cell: allocated, free, or unhealthy (on nodes that are lost, found unhealthy, or cordoned).",
    ["cell", "accelerator", "state"],
    registry=REGISTRY,
)
_headroom = Gauge(
    "helios_headroom_replicas",
    "Replicas of services that room is held for and lent meanwhile.",
    ["tenant", "accelerator"],
    registry=REGISTRY,
)
_agent_lag = Gauge(
    "helios_agent_lag_seconds", "Since the last report of the cell's agent.", ["cell"], registry=REGISTRY
)

_request_time = Histogram(
    "helios_api_request_duration_seconds",
    "Answered HTTP requests, by route template.",
    ["route", "method", "status"],
    buckets=_FAST,
    registry=REGISTRY,
)
_watch_lag = Histogram(
    "helios_watch_lag_seconds",
    "From a write of this replica to its event on the way to a watcher.",
    buckets=_FAST,
    registry=REGISTRY,
)
_watchers = Gauge("helios_watchers", "Open watches and streams of this replica.", registry=REGISTRY)

_write_time = Histogram(
    "helios_store_write_duration_seconds",
    "One transaction of the store, from its begin to its commit.",
    buckets=_FAST,
    registry=REGISTRY,
)
_write_size = Histogram(
    "helios_store_write_batch_size",
    "Writes of this process that shared one transaction.",
    buckets=_SIZES,
    registry=REGISTRY,
)


class _Known:
    """The first so many values of a label; all later ones are `OTHER`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, value: str) -> str:
        with self._lock:
            if value not in self._values and len(self._values) < self._most:
                self._values.add(value)
            return value if value in self._values else OTHER


class _Pending:
    """When the newest revisions of this process were written, until they are delivered."""

    def __init__(self, most: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._written: deque[tuple[int, float]] = deque(maxlen=most)
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._watched = False

    def wrote(self, revision: int) -> None:
        with self._lock:
            self._written.append((revision, self._monotonic()))

    def delivered(self, revision: int) -> list[float]:
        """Seconds since each of the writes that this delivers; what was written before anybody watched has no lag."""
        with self._lock:
            now = self._monotonic()
            lags = []
            while self._written and self._written[0][0] <= revision:
                lags.append(now - self._written.popleft()[1])
            waited_for, self._watched = self._watched, True
            return lags if waited_for else []


_reasons = _Known(MOST_REASONS)
_pending = _Pending(MOST_PENDING)
_routes = _Known(MOST_ROUTES)


def render() -> tuple[bytes, str]:
    """The body of `GET /metrics`, and its content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_PLAIN_0_0_4


# The process and its part ---------------------------------------------------------------------------------------------


def set_leader(leads: bool) -> None:
    """Say whether this replica leads. When it no longer does, what only a leader knows is taken away."""
    _leader.set(int(leads))
    if not leads:
        for metric in (_records, _queue_depth, _queue_oldest, _agent_lag, _gpus, _headroom, _gpu_seconds):
            metric.clear()


def set_records(counts: Mapping[tuple[str, str], int]) -> None:
    """How many objects there are by (kind, state); what is not named is gone."""
    _replace(_records, counts)


def count_restart(reason: str) -> None:
    """One launch ended early and its job goes on. A reason not in CamelCase, or one too many, counts as `Other`."""
    _restarts.labels(_reasons(reason) if _REASON.fullmatch(reason) else OTHER).inc()


# Queue and scheduler --------------------------------------------------------------------------------------------------


def set_queue(waiting: Mapping[tuple[str, str], tuple[int, float]]) -> None:
    """What waits by (QoS class, tenant): how many, and for how many seconds the oldest; what is not named is gone."""
    _replace(_queue_depth, {labels: depth for labels, (depth, _) in waiting.items()})
    _replace(_queue_oldest, {labels: oldest for labels, (_, oldest) in waiting.items()})


def observe_wait(*, qos: str, tenant: str, seconds: float) -> None:
    """One gang was admitted after so long in the queue."""
    _queue_wait.labels(qos, tenant).observe(seconds)


def observe_decisions(n: int, seconds: float) -> None:
    """One scheduling pass that decided on `n` gangs."""
    _decisions.inc(n)
    _decision_time.observe(seconds)


def observe_cycle(seconds: float) -> None:
    """One pass of all controllers."""
    _cycle_time.observe(seconds)


# Cells ----------------------------------------------------------------------------------------------------------------


def add_gpu_seconds(*, bucket: str, tenant: str, cell: str, seconds: float) -> None:
    """Count GPU-seconds; see `helios.control.accounting.Meter`, which begins with all that the store knows of."""
    _gpu_seconds.labels(bucket, tenant, cell).inc(seconds)


def set_gpus(counts: Mapping[tuple[str, str, str], int]) -> None:
    """GPUs by (cell, accelerator, state); states are `allocated`, `free` and `unhealthy`. What is not named is gone."""
    _replace(_gpus, counts)


def set_headroom(replicas: Mapping[tuple[str, str], int]) -> None:
    """Replicas that room is held for by (tenant, accelerator); what is not named is gone."""
    _replace(_headroom, replicas)


def set_agent_lag(cell: str, seconds: float) -> None:
    """Seconds since the cell's last report."""
    _agent_lag.labels(cell).set(seconds)


def forget_cell(cell: str) -> None:
    """The cell was taken away: nobody waits for its agent."""
    _agent_lag.remove(cell)


# API and store --------------------------------------------------------------------------------------------------------


def observe_request(*, route: str, method: str, status: int, seconds: float) -> None:
    """One answered request, or the begin of a stream.

    Args:
        route: the template (`/v1/jobs/{name}`), empty where none matched. A request that waits on purpose (watch, long
            poll, stream) says so in its route (`/v1/jobs?watch`), or its wait would pass for latency.
        method: HTTP method; empty where no route matched, since a client may invent one.
        status: HTTP status code.
        seconds: until the response was complete; until its first byte where it is a stream.
    """
    _request_time.labels(_routes(route) if route else OTHER, method or OTHER, str(status)).observe(seconds)


def observe_delivery(revision: int) -> None:
    """Everything up to this revision is on the way to the watchers of this process."""
    for lag in _pending.delivered(revision):
        _watch_lag.observe(lag)


def add_watchers(n: int) -> None:
    """A watch was opened (1) or closed (-1)."""
    _watchers.inc(n)


def observe_write(seconds: float, batch: int, *, revision: int = 0) -> None:
    """One transaction that held `batch` writes, the last of them with this revision; 0 where it raised none."""
    _write_time.observe(seconds)
    _write_size.observe(batch)
    if revision:
        _pending.wrote(revision)


def _replace(gauge: Gauge, values: Mapping[_Labels, float]) -> None:
    """Give a gauge exactly these series. A scrape in between sees each as it was or as it is."""
    for labels, value in values.items():
        gauge.labels(*labels).set(value)
    for metric in gauge.collect():
        for sample in metric.samples:
            if tuple(sample.labels.values()) not in values:
                gauge.remove(*sample.labels.values())
