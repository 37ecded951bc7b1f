"""Group commit: threads that write at the same time share one transaction, and one sync of the disk.

The thread that finds nobody writing writes for all who wait (flat combining): it takes the queue, runs each operation,
commits once and hands every thread its own result or its own error.
"""

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import sqlalchemy as sa

from helios.errors import HeliosError, NoSpaceError, UnavailableError
from helios.ports import Clock
from helios.store.database import Database
from helios.store.transaction import Key, Transaction
from helios.store.waiting import Counters
from helios.telemetry import metrics

T = TypeVar("T")
LARGEST_GROUP = 256
"""Operations that share a transaction at most: what bounds how long the first of them waits."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """One write.

    Attributes:
        run: may run more than once, each time in a new transaction: it does nothing but through the transaction, and
            refuses (raises a `HeliosError`) before it writes anything.
        records: what it will look for, so that it is read for all operations at once.
        keys: idempotency keys, likewise.
    """

    run: Callable[[Transaction], T]
    records: tuple[Key, ...] = ()
    keys: tuple[str, ...] = ()


class _TornError(Exception):
    """An operation refused after it had written something: a bug, which must not reach what it shares."""


@dataclass(slots=True, eq=False)
class _Waiting(Generic[T]):
    operation: Operation[T]
    woken: threading.Event = field(default_factory=threading.Event)
    done: bool = False
    result: T | None = None
    error: Exception | None = None

    def fail(self, error: Exception) -> None:
        self.done, self.error = True, error

    def succeed(self, result: T) -> None:
        self.done, self.result = True, result


class Writer:
    """Runs operations, each wholly or not at all, in the order of their revisions."""

    def __init__(self, database: Database, *, clock: Clock, counters: Counters) -> None:
        self._database = database
        self._clock = clock
        self._counters = counters
        self._mutex = threading.Lock()
        self._queue: deque[_Waiting[object]] = deque()
        self._busy = False

    def write(self, operation: Operation[T]) -> T:
        """Run it and return when it is durable.

        Raises:
            UnavailableError: the database does not answer. Where the connection broke during the commit nobody knows
                whether it was written; the message says so.
            NoSpaceError: the disk is full.
        """
        mine: _Waiting[T] = _Waiting(operation)
        with self._mutex:
            self._queue.append(mine)  # type: ignore[arg-type]  # the queue holds operations of every result
            leads, self._busy = not self._busy, True
        if not leads:
            self._wait(mine)
        if not mine.done:
            self._lead()
        if mine.error is not None:
            raise mine.error
        return mine.result  # type: ignore[return-value]  # done without error: `succeed` was called with a T

    def _wait(self, mine: _Waiting[T]) -> None:
        try:
            mine.woken.wait()
        except BaseException:
            with self._mutex:
                if mine in self._queue:
                    self._queue.remove(mine)  # type: ignore[arg-type]  # see `write`
                    if mine.woken.is_set():
                        self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Let the first of the queue lead, with the mutex held."""
        self._busy = bool(self._queue)
        if self._queue:
            self._queue[0].woken.set()

    def _lead(self) -> None:
        group: list[_Waiting[object]] = []
        self._let_join(group)
        try:
            self._settle(group, joined=self._let_join)
        finally:
            for waiting in group:
                if not waiting.done:
                    waiting.fail(UnavailableError("the thread that wrote for this one was interrupted"))
                waiting.woken.set()
            with self._mutex:
                self._pass_on()

    def _let_join(self, group: list[_Waiting[object]]) -> None:
        """Take in who waits: at first, and again when the lock is held, which may have taken its time."""
        with self._mutex:
            room = LARGEST_GROUP - len(group)
            group += [self._queue.popleft() for _ in range(min(len(self._queue), room))]

    def _settle(
        self,
        group: list[_Waiting[object]],
        *,
        again: bool = True,
        joined: Callable[[list[_Waiting[object]]], None] = lambda _: None,
    ) -> None:
        """Give every operation of the group its result or its error, where it has none yet.

        `joined` is called once the lock is held, and may add to the group.
        """
        if not group:
            return
        try:
            self._transact(group, joined)
        except sa.exc.SQLAlchemyError as error:
            # What has no result was not committed. A connection that had been cut before is replaced, once.
            if again and self._database.lost(error):
                self._settle([waiting for waiting in group if not waiting.done], again=False)
                return
            meaning = self._database.translated(error)
            if isinstance(meaning, UnavailableError | NoSpaceError) or len(group) == 1:
                _fail(group, meaning, error)
            else:
                self._one_by_one(group)
        except UnavailableError as error:  # of the commit itself: what cannot be tried again without knowing
            _fail(group, error, error.__cause__)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where it belongs
            if len(group) == 1:
                _fail(group, error, error.__cause__)
            else:
                self._one_by_one(group)

    def _one_by_one(self, group: list[_Waiting[object]]) -> None:
        """One of these operations broke the transaction of all: let it break its own."""
        for waiting in group:
            if not waiting.done:
                self._settle([waiting])

    def _transact(self, group: list[_Waiting[object]], joined: Callable[[list[_Waiting[object]]], None]) -> None:
        with self._database.writer.connect() as connection:
            began = time.perf_counter()
            begun = connection.begin()
            transaction = Transaction(connection, self._database, now=self._clock.now())
            joined(group)
            transaction.prefetch(
                [key for waiting in group for key in waiting.operation.records],
                [key for waiting in group for key in waiting.operation.keys],
            )
            results = [(waiting, *_run(waiting.operation, transaction)) for waiting in group]
            if transaction.writes:
                news = transaction.news()
                with self._database.together(connection):
                    transaction.flush()
                    if any(news):
                        self._database.announce(connection, revision=news[0], report_version=news[1])
                    self._commit(connection, begun)
                    # At once: what is committed must not be tried again, whatever happens from here on.
                    _hand_out(results)
                self._counters.heard(news[0] or 0, news[1] or 0)
                metrics.observe_write(time.perf_counter() - began, len(group), revision=news[0] or 0)
            else:
                begun.rollback()
                _hand_out(results)

    def _commit(self, connection: sa.Connection, begun: sa.RootTransaction) -> None:
        try:
            begun.commit()
        except sa.exc.DBAPIError as error:
            connection.invalidate(error)  # SQLite may leave the transaction open, which SQLAlchemy takes for ended
            if self._database.surely_rolled_back(error):
                raise
            raise UnavailableError(
                f"the store {self._database.name} was lost while it wrote: whether it did is not known",
                hint="read before you write again, or use an idempotency key",
            ) from error


def _run(operation: Operation[T], transaction: Transaction) -> tuple[T | None, HeliosError | None]:
    before = transaction.writes
    try:
        return operation.run(transaction), None
    except HeliosError as error:
        if transaction.writes != before:
            raise _TornError(str(error)) from error
        return None, error


def _hand_out(results: Iterable[tuple[_Waiting[object], object, HeliosError | None]]) -> None:
    for waiting, result, error in results:
        if error is None:
            waiting.succeed(result)
        else:
            waiting.fail(error)


def _fail(group: list[_Waiting[object]], error: Exception, cause: BaseException | None) -> None:
    for waiting in group:
        if waiting.done:
            continue
        # Each thread raises its own: a traceback belongs to one.
        own = copy.copy(error) if len(group) > 1 else error
        own.__cause__ = cause
        waiting.fail(own)
