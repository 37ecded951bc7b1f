"""What agents say, and which logs they are asked for.

A log is kept as chunks that do not overlap, in the order of the log; whoever reads it follows what is here from one
offset on, and asks the cell for what comes next.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from helios.errors import FencedError
from helios.store import rows, schema
from helios.store.part import Part
from helios.store.records import StoredReport
from helios.store.transaction import Transaction

MOST_READ = 1 << 20
"""Bytes that `read_log` returns at most."""
MOST_KEPT = 16 << 20
"""Bytes kept of one launch's log; what was written first goes first."""
FAR_AHEAD = 8 << 20
"""Bytes beyond what a reader has asked for at which the cell is asked for no more until the reader follows."""
CHUNK = 64 << 10
"""Bytes up to which a chunk grows, so that a log that comes in lines is not kept in lines."""

_REPORTS = (
    sa.select(schema.reports).where(schema.reports.c.version > sa.bindparam("after")).order_by(schema.reports.c.version)
)
_chunks, _wants, _logs = schema.log_chunks.c, schema.log_wants.c, schema.logs.c


class AgentMail(Part):
    """The part of `helios.store.Store` under "Agents"."""

    __slots__ = ()

    def put_report(self, cell: str, *, generation: int, sequence: int, body: Mapping[str, object]) -> None:
        table = schema.reports
        query = sa.select(table.c.generation, table.c.sequence).where(table.c.cell == cell)

        def run(transaction: Transaction) -> None:
            heard = transaction.connection.execute(query).one_or_none()
            if heard is not None and generation < heard.generation:
                raise FencedError(
                    f"the agent of cell {cell!r} has a successor (generation {heard.generation}, not {generation})"
                )
            if heard is not None and (generation, sequence) <= tuple(heard):
                return
            row = {"cell": cell, "generation": generation, "sequence": sequence, "body": body}
            version = transaction.count("report_version")
            transaction.upsert(table, {**row, "version": version, "received_at": transaction.now})

        self._write(run)

    def reports(self, *, after: int = 0) -> tuple[StoredReport, ...]:
        found = self._database.read(lambda connection: connection.execute(_REPORTS, {"after": after}).all())
        return tuple(rows.report(row) for row in found)

    def wait_reports(self, after: int, timeout: float) -> int:
        return self._counters.wait_reports(after, timeout)

    def want_log(self, cell: str, uid: str, epoch: int, *, offset: int, ttl_s: float) -> None:
        def run(transaction: Transaction) -> None:
            connection, now = transaction.connection, transaction.now
            stored = connection.execute(_of(schema.log_wants, uid, epoch)).one_or_none()
            live = stored is not None and stored.expires_at > now
            before = _missing(connection, uid, epoch, stored.start) if stored is not None and live else None
            after = _missing(connection, uid, epoch, offset)
            fresh = live and stored is not None and stored.expires_at - now > ttl_s / 2
            if fresh and stored is not None and stored.start == offset and stored.cell == cell:
                return
            row = {"uid": uid, "epoch": epoch, "cell": cell, "start": offset, "expires_at": now + ttl_s}
            transaction.execute(schema.log_wants.delete().where(_wants.expires_at <= now))
            transaction.upsert(schema.log_wants, row)
            if after is not None and after != before:
                transaction.count()

        self._write(run)

    def log_wants(self, cell: str) -> tuple[tuple[str, int, int], ...]:
        query = (
            sa.select(schema.log_wants)
            .where(_wants.cell == cell, _wants.expires_at > self._clock.now())
            .order_by(_wants.uid, _wants.epoch)
        )

        def run(connection: sa.Connection) -> tuple[tuple[str, int, int], ...]:
            wanted = connection.execute(query).all()
            missing = [(row.uid, row.epoch, _missing(connection, row.uid, row.epoch, row.start)) for row in wanted]
            return tuple((uid, epoch, offset) for uid, epoch, offset in missing if offset is not None)

        return self._database.read(run)

    def put_log(self, uid: str, epoch: int, *, offset: int, data: bytes, ended: bool) -> None:
        def run(transaction: Transaction) -> None:
            connection = transaction.connection
            here = connection.execute(_spans(uid, epoch)).all()
            size = connection.scalar(sa.select(_logs.size).where(_logs.uid == uid, _logs.epoch == epoch))
            gaps = tuple(_gaps(offset, offset + len(data), ((start, stop) for start, stop in here)))
            ends = offset + len(data) if ended else size
            if not gaps and ends == size:
                return
            row = {"uid": uid, "epoch": epoch, "size": ends, "touched_at": transaction.now}
            transaction.upsert(schema.logs, row)
            for start, stop in gaps:
                _keep(transaction, uid, epoch, start, data[start - offset : stop - offset])
            kept = sum(stop - start for start, stop in here) + sum(stop - start for start, stop in gaps)
            if kept > MOST_KEPT:
                _forget_oldest(transaction, uid, epoch, kept - MOST_KEPT)
            transaction.count()

        self._write(run)

    def read_log(self, uid: str, epoch: int, *, offset: int) -> tuple[bytes, bool]:
        query = (
            sa.select(_chunks.start, _chunks.data)
            .where(_chunks.uid == uid, _chunks.epoch == epoch, _chunks.stop > offset)
            .where(_chunks.start < offset + MOST_READ)
            .order_by(_chunks.start)
        )
        ends = sa.select(_logs.size).where(_logs.uid == uid, _logs.epoch == epoch)
        found, size = self._database.read_snapshot(lambda one: (one.execute(query).all(), one.scalar(ends)))
        data = bytearray()
        for start, chunk in found:
            if start > offset + len(data):
                break
            data += chunk[offset + len(data) - start :]
        data = data[:MOST_READ]
        return bytes(data), size is not None and offset + len(data) >= size


def _of(table: sa.Table, uid: str, epoch: int) -> sa.Select[*tuple[Any, ...]]:
    return sa.select(table).where(table.c.uid == uid, table.c.epoch == epoch)


def _spans(uid: str, epoch: int) -> sa.Select[int, int]:
    return (
        sa.select(_chunks.start, _chunks.stop).where(_chunks.uid == uid, _chunks.epoch == epoch).order_by(_chunks.start)
    )


def _missing(connection: sa.Connection, uid: str, epoch: int, offset: int) -> int | None:
    """The first offset from `offset` on that is not here; None where nothing is to be asked for (now)."""
    end = offset
    for start, stop in connection.execute(_spans(uid, epoch).where(_chunks.stop > offset)):
        if start > end:
            break
        end = max(end, stop)
    size = connection.scalar(sa.select(_logs.size).where(_logs.uid == uid, _logs.epoch == epoch))
    if size is not None and end >= size:
        return None
    return None if end - offset >= FAR_AHEAD else end


def _gaps(start: int, stop: int, spans: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """The parts of [start, stop) that no span covers; spans are in order and do not overlap."""
    for first, last in spans:
        if start < min(first, stop):
            yield start, min(first, stop)
        start = max(start, last)
    if start < stop:
        yield start, stop


def _keep(transaction: Transaction, uid: str, epoch: int, start: int, data: bytes) -> None:
    """Write a chunk, as one with the one that ends where it begins while they are small together."""
    query = sa.select(_chunks.start, _chunks.data).where(
        _chunks.uid == uid, _chunks.epoch == epoch, _chunks.stop == start, _chunks.start > start + len(data) - CHUNK
    )
    previous = transaction.connection.execute(query).one_or_none()
    if previous is not None:
        start, data = previous.start, previous.data + data
    row = {"uid": uid, "epoch": epoch, "start": start, "stop": start + len(data), "data": data}
    transaction.upsert(schema.log_chunks, {**row, "written_at": transaction.now})


def _forget_oldest(transaction: Transaction, uid: str, epoch: int, excess: int) -> None:
    query = (
        sa.select(_chunks.start, _chunks.stop)
        .where(_chunks.uid == uid, _chunks.epoch == epoch)
        .order_by(_chunks.written_at, _chunks.start)
    )
    for start, stop in transaction.connection.execute(query).all():
        if excess <= 0:
            break
        transaction.execute(
            schema.log_chunks.delete().where(_chunks.uid == uid, _chunks.epoch == epoch, _chunks.start == start)
        )
        excess -= stop - start
