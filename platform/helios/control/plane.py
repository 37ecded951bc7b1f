"""The control plane: all controllers and the scheduler over one store, on as many replicas as there are."""

import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from helios.control.enacting import Enactor
from helios.control.explaining import explain, preview, queue
from helios.control.forecasting import Forecaster
from helios.control.gateway import CellGateway
from helios.control.index import Index
from helios.control.leader import TERM_S, Elector
from helios.control.measuring import Measures
from helios.control.observing import Observer
from helios.control.parsed import Specs
from helios.control.reconciling import Reconciler
from helios.control.requests import DEFAULT_TENANT
from helios.control.tracking import RunCloser
from helios.control.use import FORGOTTEN_AFTER, HALF_LIFE_S
from helios.control.watching import Watcher
from helios.control.writes import View, Writes
from helios.errors import ConflictError, FencedError, HeliosError, UnavailableError
from helios.ports import Clock, Tracker
from helios.scheduler import Cycle, Policy, Reservation, Snapshot, schedule
from helios.scheduler.codec import record
from helios.spec import AnyDocument, Tenant, from_json
from helios.store import Fence, Gone, Lease, Mirror, Record, Store, SystemClock
from helios.telemetry import metrics, tracing

LEASE = "control"
DEFAULT = Policy()
LOOK_AGAIN_S = 60.0
"""The scheduler decides again after so long though nothing happened, whenever it means to look itself."""
FORESEEN_S = 10.0
"""How long the reservations of a cycle are shown where none follows."""
IDLE_TICK_S = 1.0
RESYNC_S = 300.0
"""How often everything is looked at again, whatever was or was not notified."""
WORKERS = 8
"""Records that are reconciled at a time; their writes share transactions."""
MEETING_S = 0.1
"""How often a new leader looks whether all cells have reported, where their last reports are old."""
CYCLE_SHARE = 19.0
"""Pause after a scheduling cycle, in lengths of that cycle: with ten thousand in the queue, requests come first."""

_log = logging.getLogger(__name__)


class ControlPlane:
    """Observe, diff, reconcile. Everything it knows is in the store, so it may die between any two writes.

    Every replica has one: explanations and the agents' gateway work on all of them, the controllers only on the one
    that leads (`campaign`), or on the only one there is (`run`).
    """

    def __init__(
        self,
        store: Store,
        clock: Clock | None = None,
        tracker: Tracker | None = None,
        *,
        executor: Executor | None = None,
        mirror: Mirror | None = None,
        policy: Policy = DEFAULT,
    ) -> None:
        """Make the default tenant where it is not there; calls to the tracker run on `executor`, or a thread."""
        self._store = store
        self._policy = policy
        self._clock = clock or SystemClock()
        self._wake = threading.Event()
        self._own_mirror = mirror is None
        if store.find("Tenant", DEFAULT_TENANT) is None:
            document = from_json({"apiVersion": "helios/v1", "kind": "Tenant", "metadata": {"name": DEFAULT_TENANT}})
            assert isinstance(document, Tenant)
            store.apply(document)
        self.mirror = mirror or Mirror(store)
        self.mirror.sync()
        self._index = Index(self.mirror)
        self.mirror.subscribe(self._on_change)
        self.gateway = CellGateway(store, self.mirror, self._index, on_report=self._wake.set)
        self._watcher = Watcher(self._clock)
        self._measures = Measures(mirror=self.mirror, index=self._index, watcher=self._watcher, clock=self._clock)
        self._specs = Specs()
        view = View(self.mirror, self._index, self._specs, self._watcher, self._clock)
        self._writes = Writes(store, view, self._measures)
        self._observer, self._enactor = Observer(view, self._writes), Enactor(view, self._writes)
        self._reconciler = Reconciler(view, self._writes, RunCloser(tracker, self._clock, executor))
        self._forecaster = Forecaster(self.mirror, self._snapshot, self._clock, policy)
        self._scheduled_version = -1
        self._next_look = math.inf
        self._remembers = False
        self._last: tuple[Snapshot, Cycle] | None = None
        self._foreseen: tuple[float, Mapping[str, Reservation]] | None = None
        self._not_before = 0.0
        self._resync_at = 0.0
        self._begin(store)

    @property
    def store(self) -> Store:
        """What everything is kept in."""
        return self._store

    # One pass ---------------------------------------------------------------------------------------------------------

    def tick(self, pool: Executor | None = None) -> None:
        """One pass over what changed; deterministic for a given store, clock and reports, without a pool."""
        self.mirror.sync()
        now = self._clock.now()
        if now >= self._resync_at:
            self._index.touch_all()
            self._forget_gone()
            self._resync_at = now + RESYNC_S
        # 1. What cells said since the last pass, what has gone silent, and what is due.
        reports = self._watcher.fresh(self._store)
        for heard in reports:
            self._observer.observe(heard.report, pool, timely=heard.timely)
        if reports:
            self.mirror.sync()  # what was taken in is what the rest of the pass goes by
        self._watcher.touch_due(self._index, now)
        # 2. What people, cells and deadlines ask for, kind by kind: what a kind writes, the next ones see.
        self._reconciler.reconcile_dirty(pool)
        # 3. Places for what waits. Only an intent is written here; the cell fetches it.
        self._schedule(pool)

    def _schedule(self, pool: Executor | None) -> None:
        version, now = self._index.scheduling_version, self._clock.now()
        if time.monotonic() < self._not_before:
            return
        due = self._watcher.scheduling_due(now) or now >= self._next_look
        if version == self._scheduled_version and not due:
            return
        if not self._watcher.has_met(self._index.reachable_cells()):
            # Until every cell has said what lives there, a place may be given to what runs elsewhere (after a restore).
            self._scheduled_version = -1
            if pool is not None:
                self._not_before = time.monotonic() + MEETING_S
            return
        began, computed = time.perf_counter(), time.thread_time()
        with tracing.span("control.schedule"):
            snapshot = self._index.snapshot(now)
            cycle = schedule(snapshot, self._policy)
        took = time.perf_counter() - began
        self._scheduled_version = version
        self._next_look = min(cycle.next_look, now + LOOK_AGAIN_S)
        metrics.observe_decisions(len(cycle), took)
        self._foresee(cycle, now)
        self._last = (snapshot, cycle)
        self._enactor.carry_out(cycle, pool)
        if pool is not None:  # by itself it paces itself; a test that ticks decides every time
            # To find out who is to be told what takes its time as well; to wait for the writes takes nobody's.
            self._not_before = time.monotonic() + CYCLE_SHARE * (time.thread_time() - computed)

    # The loop ---------------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Tick on every change and report, and once a second; return when `stop` is set. The only one that does."""
        if self._own_mirror:
            self.mirror.start()
        self._start_forecasting(stop)
        try:
            self._lead(self._store, stop)
        finally:
            if self._own_mirror:
                self.mirror.stop()

    def campaign(
        self, stop: threading.Event, *, holder: str, address: str = "", term_s: float = TERM_S, sole: bool = False
    ) -> None:
        """Run the controllers whenever this replica is elected; return when `stop` is set.

        Every write of theirs carries the lease's fencing token, so that a replica which was paused past its term
        changes nothing any more.

        Args:
            stop: ends it.
            holder: name of this replica, unique.
            address: where its API answers, for people.
            term_s: how long the lease stands without renewal.
            sole: no other process can have this store open, so there is nobody to wait for.
        """
        if self._own_mirror:
            self.mirror.start()
        self._start_forecasting(stop)
        elector = Elector(self._store, LEASE, holder, term_s=term_s, address=address, sole=sole)

        def lead(lease: Lease, lost: threading.Event) -> None:
            self._lead(self._store.acting(fence=Fence(lease.name, lease.token)), lost)

        try:
            elector.run(stop, lead)
        finally:
            if self._own_mirror:
                self.mirror.stop()

    def _lead(self, writes: Store, stop: threading.Event) -> None:
        self._begin(writes)
        self._measures.begin(self._store)
        threading.Thread(target=self._remember_use, name="helios-use", daemon=True).start()
        try:
            self._loop(stop)
        finally:
            self._measures.end()

    def _loop(self, stop: threading.Event) -> None:
        listener = threading.Thread(target=self._listen, args=(stop,), name="helios-reports", daemon=True)
        listener.start()
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="helios-reconcile") as pool:
            while not stop.is_set():
                self._wake.clear()
                began = time.perf_counter()
                try:
                    with tracing.span("control.pass"):
                        self.tick(pool)
                    self._measures.publish()
                    metrics.observe_cycle(time.perf_counter() - began)
                except FencedError:
                    raise
                except UnavailableError as error:
                    _log.warning("control: a pass was cut short: %s", error.message)
                    self._index.touch_all()
                    stop.wait(IDLE_TICK_S)
                except Exception:  # noqa: BLE001 - the loop outlives whatever one pass met; the next looks at it again
                    _log.exception("control: a pass failed")
                    self._index.touch_all()
                    stop.wait(IDLE_TICK_S)
                self._wake.wait(self._pause())
        listener.join()

    def _begin(self, writes: Store) -> None:
        """Take over: whatever was known of another time is forgotten, and everything is looked at once."""
        self._watcher.begin()
        self._writes.store = writes
        self._observer.begin()
        self._index.touch_all()
        self._scheduled_version, self._next_look = -1, math.inf
        self._not_before = 0.0
        self._resync_at = self._clock.now() + RESYNC_S

    def _forget_gone(self) -> None:
        """Let go of what is remembered of objects that are not there any more, however they went."""
        for memory in (self._specs, self._writes, self._observer):
            for uid in memory.uids():
                if self.mirror.by_uid(uid) is None:
                    memory.forget(uid)

    def _start_forecasting(self, stop: threading.Event) -> None:
        """Every replica learns for itself how good its forecasts are: it is asked for them whether it leads or not."""
        threading.Thread(target=self._forecaster.run, args=(stop,), name="helios-forecast", daemon=True).start()

    def _remember_use(self) -> None:
        """What tenants have had before counts in the order of the queue; a long past must not hold up a failover."""
        if self._remembers:
            return
        since = self._clock.now() - FORGOTTEN_AFTER * HALF_LIFE_S
        try:
            past = list(self._store.allocations(since=max(0.0, since)))
        except HeliosError as error:
            _log.warning("control: what tenants have had before does not count: %s", error.message)
            return
        self._index.remember_use(past)
        self._remembers = True

    def _pause(self) -> float:
        """Seconds until something is due by itself."""
        now = self._clock.now()
        if self._index.has_dirty():
            return 0.0
        moved = self._index.scheduling_version != self._scheduled_version
        # A cycle that is asked for already waits for its time all the same: asking again would only spin.
        cycle = max(
            0.0 if moved else min(self._watcher.next_scheduling(), self._next_look) - now,
            self._not_before - time.monotonic(),
        )
        return max(0.0, min(IDLE_TICK_S, self._watcher.next_due() - now, cycle))

    def _listen(self, stop: threading.Event) -> None:
        """Wake the loop for reports that came in on other replicas."""
        version = 0
        while not stop.is_set():
            try:
                seen = self._store.wait_reports(version, IDLE_TICK_S)
            except Exception:  # noqa: BLE001 - the database may be away for a while; the loop looks once a second anyway
                _log.warning("control: cannot wait for reports", exc_info=True)
                stop.wait(IDLE_TICK_S)
                continue
            if seen > version:
                version = seen
                self._wake.set()

    def _on_change(self, _items: Sequence[Record | Gone]) -> None:
        self._wake.set()

    # Questions --------------------------------------------------------------------------------------------------------

    def explain(self, name: str, kind: str = "Job") -> dict[str, Any]:
        """Why it is where it is; for what waits also cells' verdicts, what would unblock it, position and start.

        A curriculum is explained by the job of the stage that it is at. Raises `NotFoundError`.
        """
        self.mirror.sync()
        return explain(self.mirror, self._snapshot, kind, name, self._policy, foretell=self._forecaster.answer)

    def preview(self, document: AnyDocument) -> dict[str, Any]:
        """What applying the document would change, and where the scheduler would put it now; nothing is written.

        Raises what `apply` would raise.
        """
        self.mirror.sync()
        return preview(self.mirror, document, self._snapshot(), self._policy)

    def queue(self) -> list[dict[str, Any]]:
        """What waits for a place, in the order in which places are given."""
        self.mirror.sync()
        snapshot = self._snapshot()
        return queue(self.mirror, snapshot, self._policy, self._reservations(snapshot))

    def snapshot(self, *, last: bool = False) -> dict[str, Any]:
        """What the scheduler knows, the policy that it goes by, and what it decides on that, to be decided again.

        Args:
            last: of the last cycle that this replica carried out, and not of now.

        Raises:
            ConflictError: it has carried out none.
        """
        if not last:
            self.mirror.sync()
            snapshot = self._snapshot()
            return record(snapshot, self._policy, schedule(snapshot, self._policy))
        if self._last is None:
            leader = self.leader() or {}
            whom = f"{leader['holder']} ({leader['address']}) leads" if leader else "nobody leads yet"
            raise ConflictError("this replica has carried out no scheduling cycle", hint=f"ask the leader: {whom}")
        snapshot, cycle = self._last
        return record(snapshot, self._policy, cycle)

    def leader(self) -> dict[str, Any] | None:
        """Who leads, or None where nobody does."""
        lease = self._store.lease(LEASE)
        if lease is None or not lease.holder:
            return None
        return {"holder": lease.holder, "address": lease.address, "token": lease.token}

    def _reservations(self, snapshot: Snapshot) -> Mapping[str, Reservation]:
        """Those of the last cycle, by uid; one is tried on replicas that do not lead, now and then."""
        if self._foreseen is None or snapshot.now - self._foreseen[0] > FORESEEN_S:
            self._foresee(schedule(snapshot, self._policy), snapshot.now)
        return {} if self._foreseen is None else self._foreseen[1]

    def _foresee(self, cycle: Cycle, now: float) -> None:
        self._foreseen = (now, {kept.uid: kept for kept in cycle.reservations})

    def _snapshot(self) -> Snapshot:
        return self._index.snapshot(self._clock.now())
