"""What an agent is to say, until it was heard: the newest observation, when it is worth a report, what goes wrong."""

import logging
import random
import threading
import time
from dataclasses import dataclass

from helios.agent.launches import changed
from helios.errors import HeliosError, NotFoundError
from helios.ports import LaunchStatus, NodeObservation

HEARTBEAT_S = 4.0
"""The longest silence of a healthy agent."""
PROGRESS_S = 2.0
"""How often progress alone is worth a report."""
BACK_OFF_S = (0.5, 5.0)
"""Shortest and longest pause after a call that failed."""
LOOK_S = 1.0
_log = logging.getLogger(__name__)

Nodes = tuple[NodeObservation, ...] | None


@dataclass(frozen=True, slots=True)
class Observed:
    """What is to be said: the nodes, None where the engine does not answer, and every launch."""

    nodes: Nodes
    statuses: tuple[LaunchStatus, ...]

    def urgent(self, before: "Observed") -> bool:
        return self.nodes != before.nodes or changed(before.statuses, self.statuses)


class Outbox:
    """Between those who look and the one who reports: holds the newest observation, and knows when it is worth saying.

    An observation is due at once where more than progress changed, and after a while in any case.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: Observed | None = None
        self._last: Observed | None = None
        self._last_at = float("-inf")
        self._heard: list[tuple[LaunchStatus, ...]] = []

    def put(self, observed: Observed) -> None:
        with self._changed:
            if self._is_due(observed):
                self._waiting = observed
                self._changed.notify_all()

    def next(self, ended: threading.Event) -> Observed | None:
        """Wait for one that is due, and take it; None after a while without."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or ended.is_set(), timeout=LOOK_S)
            observed, self._waiting = self._waiting, None
            return observed

    def sent(self, observed: Observed) -> None:
        """The control plane has heard this one."""
        with self._changed:
            self._last, self._last_at = observed, time.monotonic()
            self._heard.append(observed.statuses)

    def take_heard(self) -> list[tuple[LaunchStatus, ...]]:
        """The statuses of reports that were heard since the last call."""
        with self._changed:
            heard, self._heard = self._heard, []
            return heard

    def close(self) -> None:
        """Wake whoever waits."""
        with self._changed:
            self._changed.notify_all()

    def _is_due(self, observed: Observed) -> bool:
        if self._last is None:
            return True
        silent = time.monotonic() - self._last_at
        if silent >= HEARTBEAT_S or observed.urgent(self._last):
            return True
        return silent >= PROGRESS_S and observed.statuses != self._last.statuses


class Trouble:
    """Says once that something does not work, and once that it does again; the pauses between tries grow."""

    def __init__(self, cell: str, what: str) -> None:
        self._cell = cell
        self._what = what
        self._since: float | None = None
        self._said = ""
        self._next_s = BACK_OFF_S[0]

    @property
    def pause_s(self) -> float:
        """Drawn, so that a fleet of agents does not come back all at once."""
        pause = self._next_s * random.uniform(0.5, 1.0)
        self._next_s = min(self._next_s * 2, BACK_OFF_S[1])
        return pause

    def met(self, error: Exception) -> None:
        self._since = self._since or time.monotonic()
        said = f"{type(error).__name__}: {error}"
        if said == self._said:
            return
        self._said = said
        if isinstance(error, NotFoundError):
            _log.warning("cell %s: nobody has applied it; it may come back (%s)", self._cell, error.message)
        elif isinstance(error, HeliosError):
            _log.warning("cell %s %s: %s", self._cell, self._what, error.message)
        else:
            _log.error("cell %s %s", self._cell, self._what, exc_info=error)

    def over(self) -> None:
        if self._since is not None:
            _log.info("cell %s: works again after %.0f s", self._cell, time.monotonic() - self._since)
        self._since, self._said, self._next_s = None, "", BACK_OFF_S[0]
