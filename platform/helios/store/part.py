"""What every part of the store stands on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from helios.ports import Clock
from helios.store.database import Database
from helios.store.records import Actor, Fence
from helios.store.transaction import Key, Transaction
from helios.store.waiting import Counters
from helios.store.writer import Operation, Writer

T = TypeVar("T")


@dataclass(slots=True)
class Part:
    """One view of a store: the shared engines, and whose writes these are."""

    _database: Database
    _writer: Writer
    _counters: Counters
    _clock: Clock
    _fence: Fence | None = None
    _actor: Actor | None = None

    def _write(
        self, run: Callable[[Transaction], T], *, records: tuple[Key, ...] = (), keys: tuple[str, ...] = ()
    ) -> T:
        """Run a write under this view's fence; see `Operation`."""
        fence = self._fence

        def fenced(transaction: Transaction) -> T:
            transaction.check(fence)
            return run(transaction)

        return self._writer.write(Operation(fenced, records, keys))
