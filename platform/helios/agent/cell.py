"""The cell's agent: pulls what its cell is to run, sees to it, and says what it sees. Outbound only, level-triggered.

1. pull      what is to run here, and what is to stop; a call that waits, so that news arrive at once
2. converge  start or stop each, then look at it; each on its own, so that one that hangs holds up nothing else
3. strays    what this agent once started and nobody wants any more is looked at too
4. report    nodes and all statuses: when something changed, and every few seconds

Pulling, reporting and pushing logs have threads of their own: a control plane that hangs, or is gone for hours, leaves
the cell looked after as it was last told. Nothing is stopped because nobody can be asked.
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from helios import __version__
from helios.agent.findings import merged
from helios.agent.launches import Launches
from helios.agent.logs import LogPusher
from helios.agent.outbox import Nodes, Observed, Outbox, Trouble
from helios.durable import read_json, write_json
from helios.errors import ConflictError, FencedError, HeliosError, InputError, NoSpaceError
from helios.ports import AgentChannel, CellDriver, Clock, Desired, LogWant, NodeObservation, Session
from helios.store import SystemClock
from helios.wire import Key

PATIENCE_S = 5.0
"""How long `tick` waits for slow calls; they go on, and their result is reported by a later one."""
EVERY_S = 1.0
"""How often a running agent looks at its cell."""
DEAF_S = 15.0
"""An engine that takes longer to name its nodes does not answer."""
PAUSED_S = 15.0
"""An agent whose last pass is longer ago was paused, or its machine was; what it was told then is stale."""
POLL_S = 10.0
_FOLLOW_S = 0.3
_QUICK_S = 0.2
_log = logging.getLogger(__name__)


class CellAgent:
    """One cell's agent.

    Args:
        state_dir: holds `agent.json`: this agent's generation, and the launches that live here as far as it knows.
            Epochs are fenced by the driver, in whose engine they count. `nodes/` in it is where node agents write.
        patience_s: see `PATIENCE_S`.
        poll_s: how long one call for news may wait.
    """

    def __init__(
        self,
        channel: AgentChannel,
        driver: CellDriver,
        *,
        cell: str,
        state_dir: Path,
        patience_s: float = PATIENCE_S,
        poll_s: float = POLL_S,
        clock: Clock | None = None,
    ) -> None:
        self.cell = cell
        self._channel = channel
        self._driver = driver
        self._patience_s = patience_s
        self._poll_s = poll_s
        self._clock = clock or SystemClock()
        self._path = state_dir / "agent.json"
        self._findings = state_dir / "nodes"
        data = read_json(self._path) or {}
        # At least the clock's second: an agent whose disk was lost, or that moved to another machine, is no less new.
        self.generation = max(int(data.get("generation", 0)) + 1, int(self._clock.now()))
        self._sequence = 0
        live: frozenset[Key] = frozenset((str(uid), int(epoch)) for uid, epoch in data.get("live", []))
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix=f"cell-{cell}")
        self._launches = Launches(driver, self._pool, cell=cell, live=live)
        self._remembered = live
        self._keep(live)
        _sync(state_dir)  # a generation that a power cut takes back would be used twice
        self._answered = False
        self._asking: Future[Nodes] | None = None
        self._asked_at = float("-inf")
        self._nodes: Nodes = None
        # What the threads hand each other.
        self._desired = Desired()
        self._passed_at = time.monotonic()
        self._wake = threading.Event()
        self._outbox = Outbox()
        self._replaced: ConflictError | None = None

    def run(self, stop: threading.Event) -> None:
        """Look after the cell until `stop` is set.

        Raises:
            FencedError: a later agent of this cell has begun. What runs goes on; it is the other's now.
        """
        ended = threading.Event()
        helpers = [
            threading.Thread(target=work, args=(ended,), name=f"{self.cell}-{work.__name__.strip('_')}", daemon=True)
            for work in (self._pull, self._send, self._push_logs)
        ]
        self._passed_at = time.monotonic()
        for helper in helpers:
            helper.start()
        try:
            while not stop.is_set() and self._replaced is None:
                self._wake.clear()
                self._guarded(self._pass)
                self._wake.wait(EVERY_S)
                stop.wait(0.02)  # one change seldom comes alone
        finally:
            ended.set()
            self._outbox.close()
            for helper in helpers:
                helper.join(timeout=1.0)  # one may sit in a call; it is a daemon, and holds nothing
            self._pool.shutdown(wait=False, cancel_futures=True)
        if self._replaced is not None:
            _log.error("cell %s: another agent has taken over; what runs is left to it", self.cell)
            raise FencedError(
                f"another agent of cell {self.cell} has begun after this one: {self._replaced.message}",
                hint="a cell has one agent; end the other one first, where this is the right one",
            ) from self._replaced

    def tick(self) -> None:
        """One pass, with everything in it, in the caller's thread.

        Raises:
            NotFoundError: nobody applied the cell.
            ConflictError: a later agent of this cell has reported.
        """
        self._desired = self._channel.desired(self.cell)
        self._watch_nodes(everything=True)
        self._begin(self._desired, everything=True)
        self._launches.settle(self._patience_s)
        if self._asking is not None:
            wait([self._asking], timeout=self._patience_s)
        self._report(self._observe())

    def _pass(self) -> None:
        """Begin what is due, and hand what was seen to the reporter where it is worth a report."""
        now = time.monotonic()
        if now - self._passed_at > PAUSED_S:
            _log.warning("cell %s: this agent stood still for %.0f s", self.cell, now - self._passed_at)
            self._desired = Desired()  # another may have acted meanwhile: nothing is started before it is asked anew
        self._passed_at = now
        self._watch_nodes(everything=False)
        self._begin(self._desired, everything=False)
        self._launches.settle(_QUICK_S)
        observed = self._observe()
        if self._answered:  # before the engine was asked once, "no nodes" would be a guess
            self._outbox.put(observed)

    def _begin(self, desired: Desired, *, everything: bool) -> None:
        """Write down what is to live here, then begin it; what cannot be written down is not begun."""
        self._launches.intend(desired)
        if not self._remember(self._launches.live):
            known = tuple(one for one in desired.launches if (one.uid, one.epoch) in self._remembered)
            desired = replace(desired, launches=known)
        self._launches.converge(desired, everything=everything, done=self._wake.set)

    def _observe(self) -> Observed:
        desired = self._desired
        if self._asking is not None:
            if self._asking.done():
                self._nodes, self._asking, self._answered = self._asking.result(), None, True
            elif time.monotonic() - self._asked_at > DEAF_S:
                self._nodes, self._answered = None, True
        for heard in self._outbox.take_heard():
            self._launches.heard(heard)
        observed = Observed(self._nodes, self._launches.collect(desired))
        self._remember(self._launches.live)
        return observed

    def _report(self, observed: Observed) -> None:
        self._sequence += 1
        session = Session(self.generation, self._sequence, self._clock.now(), __version__)
        self._channel.report(self.cell, observed.nodes, observed.statuses, session=session)
        self._outbox.sent(observed)

    # The helpers: one thread each ------------------------------------------------------------------------------------

    def _pull(self, ended: threading.Event) -> None:
        trouble = Trouble(self.cell, "is not told what is wanted")
        while not ended.is_set():
            asked = time.monotonic()
            try:
                desired = self._channel.wait(self.cell, self._desired, self._poll_s)
            except Exception as error:  # noqa: BLE001  # whatever it is, the cell goes on as it was told last
                self._meet(error, trouble, ended)
            else:
                trouble.over()
                # What took so long lay somewhere while this agent, or its machine, stood still.
                if desired != self._desired and time.monotonic() - asked < self._poll_s + PAUSED_S:
                    self._desired = desired
                    self._wake.set()
                ended.wait(0.05)

    def _send(self, ended: threading.Event) -> None:
        trouble = Trouble(self.cell, "is not heard")
        while not ended.is_set():
            observed = self._outbox.next(ended)
            if observed is None:
                continue
            try:
                self._report(observed)
            except ConflictError as error:
                self._replaced = error
                self._wake.set()
                return
            except Exception as error:  # noqa: BLE001  # the next report says all of it again
                self._meet(error, trouble, ended)
            else:
                trouble.over()

    def _push_logs(self, ended: threading.Event) -> None:
        pusher = LogPusher(self._channel, self._driver, cell=self.cell)
        trouble = Trouble(self.cell, "cannot hand in logs")
        while not ended.wait(_FOLLOW_S):
            wants: tuple[LogWant, ...] = self._desired.logs
            try:
                while pusher.push(wants) and not ended.is_set():
                    wants = self._desired.logs
            except Exception as error:  # noqa: BLE001  # one broken log, or a disk: seen again in the next round
                self._meet(error, trouble, ended)
            else:
                trouble.over()

    def _meet(self, error: Exception, trouble: Trouble, ended: threading.Event) -> None:
        if ended.is_set():
            return
        trouble.met(error)
        ended.wait(trouble.pause_s)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001  # a full disk, say: a cell must not go silent for it; the next pass sees all
            _log.exception("cell %s: a pass failed", self.cell)

    # What the cell is -------------------------------------------------------------------------------------------------

    def _watch_nodes(self, *, everything: bool) -> None:
        now = time.monotonic()
        if self._asking is None and (everything or now - self._asked_at >= EVERY_S):
            self._asked_at = now
            self._asking = self._pool.submit(self._ask_nodes)
            self._asking.add_done_callback(lambda _: self._wake.set())

    def _ask_nodes(self) -> Nodes:
        try:
            nodes: Sequence[NodeObservation] = self._driver.nodes()
        except HeliosError as error:
            if self._nodes is not None:
                _log.warning("cell %s: %s", self.cell, error.message)
            return None
        except Exception:  # noqa: BLE001  # said as "the engine does not answer", with the reason in the log
            _log.exception("cell %s: its nodes cannot be seen", self.cell)
            return None
        return merged(nodes, self._findings, now=self._clock.now())

    def _remember(self, live: frozenset[Key]) -> bool:
        """Write what lives here for the next agent; whether that is done. Where it fails, again in the next pass."""
        if live != self._remembered:
            try:
                self._keep(live)
            except HeliosError as error:
                _log.error("cell %s: %s", self.cell, error.message)  # no defect: a full disk, say
                return False
            self._remembered = live
        return True

    def _keep(self, live: frozenset[Key]) -> None:
        try:
            write_json(self._path, {"generation": self.generation, "live": sorted(live)})
        except OSError as error:
            full = error.errno == errno.ENOSPC
            raise (NoSpaceError if full else InputError)(f"{self._path} cannot be written: {error.strerror}") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
