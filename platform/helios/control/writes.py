"""Around every write of a controller: guarded by version, one record's failure apart from the others', and told of."""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from helios.control import accounting
from helios.control.index import Index
from helios.control.measuring import Measures
from helios.control.parsed import Specs
from helios.control.watching import Watcher
from helios.errors import ConflictError, FencedError, NotFoundError, UnavailableError
from helios.ports import Clock
from helios.store import Allocation, Event, EventType, Mirror, Record, Store

TRY_AGAIN_S = 5.0
"""After what a controller could not do."""
CONTESTED = 10
"""Writes of one record that may lose their race one after another before the next one waits."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class View:
    """What controllers go by: records, what is known of all together, their specs, when each is due, and the time."""

    mirror: Mirror
    index: Index
    specs: Specs
    watcher: Watcher
    clock: Clock


class Writes:
    """Effects through one store view, which may be fenced.

    Attributes:
        store: that view.
    """

    def __init__(self, store: Store, view: View, measures: Measures) -> None:
        self.store = store
        self._index, self._watcher, self._clock, self._measures = view.index, view.watcher, view.clock, measures
        self._told: dict[str, str] = {}
        self._contested: dict[str, int] = {}

    def each(self, items: Iterable[Any], act: Callable[[Any], None], pool: Executor | None) -> None:
        """Act on each, several at a time where there is a pool."""
        listed = list(items)
        if pool is None or len(listed) < 2:
            for item in listed:
                act(item)
        else:
            for _ in pool.map(act, listed):
                pass  # what an item raised is raised here

    def guarded(self, record: Record, act: Callable[[Record], None]) -> None:
        """Act on one record; what goes wrong with one must not hold up the others."""
        try:
            act(record)
            self._contested.pop(record.uid, None)
        except (FencedError, UnavailableError):
            raise  # somebody else leads, or the store is away: nothing of this pass can go on
        except (ConflictError, NotFoundError) as error:
            self._contend(record, error)
        except Exception as error:  # noqa: BLE001 - told in the log and as an event
            self.tell(record, error)
            self._watcher.look_at(record.kind, record.name, self._clock.now() + TRY_AGAIN_S)

    def _contend(self, record: Record, error: Exception) -> None:
        """The record changed meanwhile: look again at once, but not for ever."""
        lost = self._contested[record.uid] = self._contested.get(record.uid, 0) + 1
        if lost < CONTESTED:
            _log.debug("control: %s %s changed meanwhile; it is looked at again", record.kind, record.name)
            self._index.touch(record.kind, record.name)
            self._watcher.schedule_at(self._clock.now())  # it may have been a decision that was not written
        else:
            self.tell(record, error)
            self._watcher.look_at(record.kind, record.name, self._clock.now() + TRY_AGAIN_S)
            self._watcher.schedule_at(self._clock.now() + TRY_AGAIN_S)

    def save(self, before: Record, after: Record, events: Sequence[Event]) -> Record:
        """Write what a controller made of a record, its ledger brought up to now; an idle pass writes nothing."""
        rows: tuple[Allocation, ...] = ()
        if after.kind in {"Job", "Service"}:
            after, rows = accounting.step(before, after, self._clock.now())
        if after == before and not events and not rows:
            return after
        saved = self.store.save(after, events=events, allocations=rows)
        self._measures.saved(before, saved, rows)
        return saved

    def tell(self, record: Record, error: Exception) -> None:
        """Log every failure; write an event only for a new one, or a broken record would fill the log of events."""
        _log.error("control: cannot reconcile %s %s", record.kind, record.name, exc_info=error)
        message = f"{type(error).__name__}: {error}"
        if self._told.get(record.uid) != message:
            self._told[record.uid] = message
            kind = EventType.WARNING
            self.store.add_events([Event(record.kind, record.name, record.uid, "ControllerError", message, kind)])

    def uids(self) -> frozenset[str]:
        """Of whom something is remembered."""
        return frozenset({*self._told, *self._contested})

    def forget(self, uid: str) -> None:
        self._told.pop(uid, None)
        self._contested.pop(uid, None)
