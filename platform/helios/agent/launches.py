"""What lives in a cell, launch by launch: brought to what is wanted, looked at, and remembered over restarts."""

import logging
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Executor, Future, wait
from dataclasses import replace

from helios.errors import ConflictError, UnavailableError
from helios.ports import CellDriver, Desired, Launch, LaunchStatus, Phase
from helios.wire import Key

LOOK_EVERY_S = 1.0
"""How often a launch that is not over is looked at."""
OVER = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED, Phase.ABSENT})
_log = logging.getLogger(__name__)


class Launches:
    """The launches of one cell. Each is acted on and looked at by itself, so that one that hangs holds up no other.

    Not thread-safe but for what the executor's threads do inside.

    Attributes:
        live: launches that may live here: ordered or seen, and the control plane has not heard that they are over.
    """

    def __init__(self, driver: CellDriver, executor: Executor, *, cell: str, live: Iterable[Key]) -> None:
        self.live: frozenset[Key] = frozenset(live)
        self._driver = driver
        self._executor = executor
        self._cell = cell
        self._running: dict[Key, Future[LaunchStatus]] = {}
        self._seen: dict[Key, LaunchStatus] = {}
        self._wanted: set[Key] = set()
        self._jobs: set[Key] = set()
        self._stops: set[Key] = set()
        self._stale: set[Key] = set()
        self._due: dict[Key, float] = {}
        self._said: dict[Key, str] = {}

    def intend(self, desired: Desired) -> None:
        """Take in what is to run: it belongs to `live` before it is begun, so that no crash leaves a start unknown."""
        launches = {(launch.uid, launch.epoch) for launch in desired.launches}
        self._wanted = launches | {(stop.uid, stop.epoch) for stop in desired.stops}
        self.live |= launches - self._seen.keys()

    def converge(self, desired: Desired, *, everything: bool = False, done: Callable[[], None] = lambda: None) -> None:
        """Begin to start, stop and look at what is due; `everything` is due at once. `done` is called after each."""
        highest: dict[str, int] = {}
        for uid, epoch in self.live:
            highest[uid] = max(epoch, highest.get(uid, 0))
        acts: dict[Key, Callable[[], None]] = {
            (launch.uid, launch.epoch): self._starting(launch, highest.get(launch.uid, 0))
            for launch in desired.launches
        }
        self._jobs = {(launch.uid, launch.epoch) for launch in desired.launches if launch.kind == "Job"}
        for stop in desired.stops:
            acts[stop.uid, stop.epoch] = self._stopping(stop.uid, stop.epoch, stop.grace_s)
        self._distrust({(stop.uid, stop.epoch) for stop in desired.stops})
        for key in self.live - acts.keys():
            acts[key] = _looking
        now = time.monotonic()
        for key, act in acts.items():
            if key in self._running or self._is_final(key):
                continue
            if everything or now >= self._due.get(key, 0.0):
                future = self._executor.submit(self._look, key, act, stopping=key in self._stops)
                future.add_done_callback(lambda _: done())
                self._running[key] = future

    def settle(self, timeout: float) -> None:
        """Wait for what was begun; what takes longer goes on, and is collected later."""
        wait([*self._running.values()], timeout=timeout)

    def collect(self, desired: Desired) -> tuple[LaunchStatus, ...]:
        """What was seen of all that is wanted or lives here; of what is being looked at, what was seen before."""
        again = time.monotonic() + LOOK_EVERY_S
        for key in [key for key, future in self._running.items() if future.done()]:
            status = self._running.pop(key).result()
            if status.phase not in OVER:
                self.live |= {key}
            if key in self._stale:
                self._stale.discard(key)
                continue
            self._seen[key] = status
            self._due[key] = again
        launches = {(launch.uid, launch.epoch) for launch in desired.launches}
        asked = launches | {(stop.uid, stop.epoch) for stop in desired.stops} | self.live
        self._seen = {key: status for key, status in self._seen.items() if key in asked or key in self._running}
        for key in [key for key in self._said if key not in self._seen and key not in self._running]:
            self._said.pop(key, None)
        self._due = {key: due for key, due in self._due.items() if key in self._seen}
        return tuple(self._seen.values())

    def heard(self, statuses: Iterable[LaunchStatus]) -> None:
        """The control plane has heard these: what is over, and no longer asked for, is looked after no more."""
        self.live -= {(status.uid, status.epoch) for status in statuses if status.phase in OVER} - self._wanted

    def _is_final(self, key: Key) -> bool:
        """What will never be otherwise is not looked at again: a job's end, and a stop that was carried out."""
        status = self._seen.get(key)
        if status is None:
            return False
        ended = status.phase is Phase.STOPPED or (
            status.phase in {Phase.SUCCEEDED, Phase.FAILED} and (key in self._jobs or key in self._stops)
        )
        return ended and status.stopping == (key in self._stops)

    def _distrust(self, stops: set[Key]) -> None:
        """Forget what was seen before a stop was asked for: `Absent` would confirm an end that nobody looked at."""
        for key in stops - self._stops:
            self._seen.pop(key, None)
            self._due.pop(key, None)
            if key in self._running:
                self._stale.add(key)
        self._stops = stops

    def _look(self, key: Key, act: Callable[[], None], *, stopping: bool) -> LaunchStatus:
        """Act on one launch and observe it; whatever goes wrong is said of this one alone."""
        uid, epoch = key
        try:
            act()
        except UnavailableError as error:
            if self._said.get(key) != error.message:  # an engine that is away for an hour is told of once
                self._said[key] = error.message
                _log.info("cell %s: %s epoch %d: %s", self._cell, uid, epoch, error.message)
        except ConflictError as error:
            return LaunchStatus(uid, epoch, Phase.FAILED, "Fenced", error.message, stopping=stopping)
        except Exception as error:  # noqa: BLE001  # one broken launch is reported and holds up no other
            return self._broken(key, error)
        else:
            self._said.pop(key, None)
        try:
            return replace(self._driver.status(uid, epoch), stopping=stopping)
        except Exception as error:  # noqa: BLE001  # the same: said of this launch, and seen again next time
            return self._broken(key, error)

    def _broken(self, key: Key, error: Exception) -> LaunchStatus:
        _log.error("cell %s: %s epoch %d", self._cell, *key, exc_info=error)
        return LaunchStatus(*key, Phase.UNKNOWN, "AgentError", f"{type(error).__name__}: {error}")

    def _starting(self, launch: Launch, later: int) -> Callable[[], None]:
        def start() -> None:
            if launch.epoch < later:
                raise ConflictError(f"{launch.name}: epoch {launch.epoch} is fenced; epoch {later} lives here")
            self._driver.start(launch)

        return start

    def _stopping(self, uid: str, epoch: int, grace_s: float) -> Callable[[], None]:
        return lambda: self._driver.stop(uid, epoch, grace_s=grace_s)


def _looking() -> None:
    """A launch that nobody asks for is only looked at; the control plane decides whether it must stop."""


def changed(before: Collection[LaunchStatus], after: Collection[LaunchStatus]) -> bool:
    """Whether more than progress differs: what the control plane is to hear at once."""
    return {_essence(status) for status in before} != {_essence(status) for status in after}


def _essence(status: LaunchStatus) -> tuple[object, ...]:
    outputs = tuple(sorted(status.outputs.items()))
    return status.uid, status.epoch, status.phase, status.reason, status.message, status.stopping, outputs
