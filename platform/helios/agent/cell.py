"""The cell's agent: pulls what its cell is to run, sees to it, and says what it sees. Outbound only, level-triggered.

1. desired   what is to run here, and what is to stop
2. converge  start or stop each, then look at it; each on its own, so that one that hangs holds up nothing else
3. strays    what this agent once started and nobody wants any more is looked at too
4. report    nodes and all statuses, every time
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from helios.control import CellGateway, Desired, Stop
from helios.durable import read_json, write_json
from helios.errors import ConflictError, HeliosError, NotFoundError, UnavailableError
from helios.ports import CellDriver, Launch, LaunchStatus, NodeObservation, Phase

PATIENCE_S = 5.0
"""How long a tick waits for slow calls; they go on, and their result is reported by a later tick."""
EVERY_S = 1.0
_OVER = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED, Phase.ABSENT})
_Key = tuple[str, int]
_log = logging.getLogger(__name__)


class CellAgent:
    """One cell's agent.

    Args:
        state_dir: holds `agent.json`: the launches that live here as far as this agent knows. Epochs are fenced by the
            driver, in whose engine they count.
        patience_s: see `PATIENCE_S`.
    """

    def __init__(
        self,
        gateway: CellGateway,
        driver: CellDriver,
        *,
        cell: str,
        state_dir: Path,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.cell = cell
        self._gateway = gateway
        self._driver = driver
        self._patience_s = patience_s
        self._path = state_dir / "agent.json"
        data = read_json(self._path) or {}
        self._live: set[_Key] = {(str(uid), int(epoch)) for uid, epoch in data.get("live", [])}
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix=f"cell-{cell}")
        self._running: dict[_Key, Future[LaunchStatus]] = {}
        self._seen: dict[_Key, LaunchStatus] = {}
        self._stops: set[_Key] = set()
        self._stale: set[_Key] = set()
        self._nodes: Future[tuple[NodeObservation, ...] | None] | None = None
        self._last_nodes: tuple[NodeObservation, ...] | None = None

    def run(self, stop: threading.Event) -> None:
        """Tick whenever something is wanted, and once a second; returns when `stop` is set."""
        known = Desired()
        while not stop.is_set():
            try:
                self.tick()
                known = self._gateway.wait(self.cell, known, EVERY_S)
            except NotFoundError:
                stop.wait(EVERY_S)  # the cell was taken away; it may come back
            except HeliosError as error:
                _log.warning("cell %s: %s", self.cell, error.message)
                stop.wait(EVERY_S)
            except Exception:  # noqa: BLE001  # a full disk, say: a cell must not go silent for it; all is seen again next tick
                _log.exception("cell %s: a tick failed", self.cell)
                stop.wait(EVERY_S)
            else:
                stop.wait(0.2)  # one change seldom comes alone
        self._pool.shutdown(wait=False, cancel_futures=True)

    def tick(self) -> None:
        """One pass. Raises `NotFoundError` for a cell that nobody applied."""
        desired = self._gateway.desired(self.cell)
        self._watch_nodes()
        self._converge(desired)
        wait([*self._running.values()], timeout=self._patience_s)
        if self._nodes is not None:
            wait([self._nodes], timeout=self._patience_s)
        statuses = self._collect(desired)
        self._remember(statuses)
        self._gateway.report(self.cell, self._observed_nodes(), statuses)

    def _converge(self, desired: Desired) -> None:
        wanted: dict[_Key, Callable[[], None]] = {}
        for launch in desired.launches:
            wanted[launch.uid, launch.epoch] = _starting(self._driver, launch)
        for stop in desired.stops:
            wanted[stop.uid, stop.epoch] = _stopping(self._driver, stop)
        self._distrust({(stop.uid, stop.epoch) for stop in desired.stops})
        for key in self._live - wanted.keys():
            wanted[key] = _looking
        for key, act in wanted.items():
            if key not in self._running:
                self._running[key] = self._pool.submit(self._look, key, act)

    def _distrust(self, stops: set[_Key]) -> None:
        """Forget what was seen before a stop was asked for: `Absent` would confirm an end that nobody looked at."""
        for key in stops - self._stops:
            self._seen.pop(key, None)
            if key in self._running:
                self._stale.add(key)
        self._stops = stops

    def _look(self, key: _Key, act: Callable[[], None]) -> LaunchStatus:
        """Act on one launch and observe it; whatever goes wrong is said of this one alone."""
        uid, epoch = key
        try:
            act()
        except UnavailableError as error:
            _log.info("cell %s: %s epoch %d: %s", self.cell, uid, epoch, error.message)
        except ConflictError as error:
            return LaunchStatus(uid=uid, epoch=epoch, phase=Phase.FAILED, reason="Fenced", message=error.message)
        except Exception as error:  # noqa: BLE001  # one broken launch is reported and holds up no other
            _log.exception("cell %s: %s epoch %d", self.cell, uid, epoch)
            return LaunchStatus(uid, epoch, Phase.UNKNOWN, "AgentError", f"{type(error).__name__}: {error}")
        try:
            return self._driver.status(uid, epoch)
        except Exception as error:  # noqa: BLE001  # the same: said of this launch, and seen again next tick
            _log.exception("cell %s: status of %s epoch %d", self.cell, uid, epoch)
            return LaunchStatus(uid, epoch, Phase.UNKNOWN, "AgentError", f"{type(error).__name__}: {error}")

    def _collect(self, desired: Desired) -> list[LaunchStatus]:
        """Results that are there; for a call that still runs, what was seen last."""
        for key in [key for key, future in self._running.items() if future.done()]:
            result = self._running.pop(key).result()
            if key in self._stale:
                self._stale.discard(key)
            else:
                self._seen[key] = result
        launches = {(launch.uid, launch.epoch) for launch in desired.launches}
        asked = launches | {(stop.uid, stop.epoch) for stop in desired.stops} | self._live
        self._seen = {key: status for key, status in self._seen.items() if key in asked or key in self._running}
        return list(self._seen.values())

    def _remember(self, statuses: list[LaunchStatus]) -> None:
        over = {(status.uid, status.epoch) for status in statuses if status.phase in _OVER}
        alive = {(status.uid, status.epoch) for status in statuses if status.phase not in _OVER}
        live = (self._live | alive) - over
        if live != self._live:
            self._live = live
            write_json(self._path, {"live": sorted(live)})

    def _watch_nodes(self) -> None:
        if self._nodes is None:
            self._nodes = self._pool.submit(self._ask_nodes)

    def _ask_nodes(self) -> tuple[NodeObservation, ...] | None:
        try:
            return tuple(self._driver.nodes())
        except HeliosError as error:
            if self._last_nodes is not None:
                _log.warning("cell %s: %s", self.cell, error.message)
            return None
        except Exception:  # noqa: BLE001  # said as "the engine does not answer", with the reason in the log
            _log.exception("cell %s: its nodes cannot be seen", self.cell)
            return None

    def _observed_nodes(self) -> tuple[NodeObservation, ...] | None:
        """The nodes as last seen, or None where the engine does not answer."""
        if self._nodes is not None and self._nodes.done():
            self._last_nodes = self._nodes.result()
            self._nodes = None
        return self._last_nodes


def _starting(driver: CellDriver, launch: Launch) -> Callable[[], None]:
    return lambda: driver.start(launch)


def _stopping(driver: CellDriver, stop: Stop) -> Callable[[], None]:
    return lambda: driver.stop(stop.uid, stop.epoch, grace_s=stop.grace_s)


def _looking() -> None:
    """A launch that nobody asks for is only looked at; the control plane decides whether it must stop."""
