"""What the replica that leads says about the fleet in numbers: queue, objects, GPUs, where GPU time goes."""

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable

from helios.control.accounting import Meter, settled_before
from helios.control.index import KINDS, Index
from helios.control.watching import Watcher
from helios.errors import HeliosError
from helios.ports import Clock
from helios.scheduler import Node, Snapshot
from helios.store import Allocation, Mirror, Record, Store, seconds
from helios.telemetry import metrics

EVERY_S = 5.0
RECENT_S = 60.0
_log = logging.getLogger(__name__)


class Measures:
    """Fills the metrics that only a leader knows. Thread-safe."""

    def __init__(self, *, mirror: Mirror, index: Index, watcher: Watcher, clock: Clock) -> None:
        self._mirror = mirror
        self._index = index
        self._watcher = watcher
        self._clock = clock
        self._lock = threading.Lock()
        self._meter: Meter | None = None
        self._cells: set[str] = set()
        self._due = 0.0

    def begin(self, store: Store) -> None:
        """Begin to lead: GPU time goes on from all that the store knows of. Nobody else writes any more.

        What was closed long ago is added up beside it: a hundred thousand allocations must not hold up a failover.
        """
        metrics.set_leader(True)
        since = self._clock.now() - RECENT_S
        with self._lock:
            meter = self._meter = Meter(store.allocations(since=since), since=since)
            self._due = 0.0

        def add_history() -> None:
            try:
                settled = settled_before(store.allocations(), since)
            except HeliosError as error:
                _log.warning("GPU time of the past is not in the metrics: %s", error.message)
                return
            with self._lock:
                meter.add(settled)

        threading.Thread(target=add_history, name="helios-history", daemon=True).start()

    def end(self) -> None:
        with self._lock:
            self._meter = None
        metrics.set_leader(False)

    def saved(self, before: Record, after: Record, rows: Iterable[Allocation]) -> None:
        """A controller has written a record, and these allocations with it."""
        with self._lock:
            if self._meter is None:
                return
            self._meter.take(rows)
        if int(after.status.get("restarts", 0)) > int(before.status.get("restarts", 0)):
            metrics.count_restart(str(after.status.get("reason", "")))
        if after.state == "Admitted" and before.state != "Admitted":
            queued = after.status.get("queuedAt")
            waited = self._clock.now() - (seconds(queued) if queued else after.created_at)
            metrics.observe_wait(qos=after.spec["qos"], tenant=after.spec["tenant"], seconds=max(0.0, waited))

    def publish(self) -> None:
        """Bring the gauges up to date, where they have not been for a few seconds."""
        now = self._clock.now()
        with self._lock:
            if self._meter is None or now < self._due:
                return
            self._due = now + EVERY_S
            for (bucket, tenant, cell), gained in self._meter.advance(now).items():
                metrics.add_gpu_seconds(bucket=bucket, tenant=tenant, cell=cell, seconds=gained)
        metrics.set_records(Counter((kind, item.state) for kind in KINDS for item in self._mirror.records(kind)))
        snapshot = self._index.snapshot(now)
        metrics.set_queue(_queue(snapshot))
        metrics.set_gpus(_gpus(snapshot))
        metrics.set_headroom(headroom_by_tenant(snapshot))
        self._publish_lag()

    def _publish_lag(self) -> None:
        cells = {record.name for record in self._mirror.records("Cell")}
        for gone in self._cells - cells:
            metrics.forget_cell(gone)
        for cell in cells:
            metrics.set_agent_lag(cell, self._watcher.silent_for(cell))
        self._cells = cells


def _queue(snapshot: Snapshot) -> dict[tuple[str, str], tuple[int, float]]:
    """Waiting gangs by (QoS class, tenant): how many, and how long the oldest has waited."""
    waits: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for gang in snapshot.pending:
        waits[str(gang.qos), gang.tenant].append(max(0.0, snapshot.now - gang.submitted_at))
    return {labels: (len(times), max(times)) for labels, times in waits.items()}


def _gpus(snapshot: Snapshot) -> dict[tuple[str, str, str], int]:
    """GPUs by (cell, accelerator, state)."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for cell in snapshot.cells:
        for node in cell.nodes:
            for accelerator, number in node.accelerators.items():
                counts[cell.name, accelerator, "free" if _takes_work(node) else "unhealthy"] += number
    healthy = {(cell.name, node.name) for cell in snapshot.cells for node in cell.nodes if _takes_work(node)}
    for gang in snapshot.running:
        request = gang.request
        for node_name in gang.nodes if request.accelerators else ():
            counts[gang.cell, request.accelerator, "allocated"] += request.accelerators
            state = "free" if (gang.cell, node_name) in healthy else "unhealthy"
            counts[gang.cell, request.accelerator, state] -= request.accelerators
    return {labels: max(0, number) for labels, number in counts.items()}


def headroom_by_tenant(snapshot: Snapshot) -> dict[tuple[str, str], int]:
    """Replicas that room is to be held for by (tenant, accelerator)."""
    counts: Counter[tuple[str, str]] = Counter()
    for held in snapshot.headroom:
        counts[held.tenant, held.request.accelerator] += held.replicas
    return counts


def _takes_work(node: Node) -> bool:
    return node.healthy and not node.cordoned
