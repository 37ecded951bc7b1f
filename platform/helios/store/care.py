"""What an operator does with a store: forget what is old, take a backup, start from one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from helios.store import backup, schema
from helios.store.part import Part
from helios.store.transaction import Transaction


class Care(Part):
    """The part of `helios.store.Store` under "Care"."""

    __slots__ = ()

    def compact(self, *, before: float) -> Mapping[str, int]:
        old = schema.tombstones.c.time < before
        kept = schema.log_chunks.c
        of_old_logs = sa.exists().where(
            schema.logs.c.uid == kept.uid, schema.logs.c.epoch == kept.epoch, schema.logs.c.touched_at < before
        )

        def run(transaction: Transaction) -> Mapping[str, int]:
            def forget(table: sa.Table, condition: Any) -> int:
                if transaction.connection.scalar(sa.select(sa.func.count()).where(condition).select_from(table)) == 0:
                    return 0
                return transaction.execute(table.delete().where(condition)).rowcount

            transaction.flush()
            newest = transaction.connection.scalar(sa.select(sa.func.max(schema.tombstones.c.revision)).where(old))
            if newest is not None:
                transaction.count("compacted_revision", to=max(newest, transaction.counter("compacted_revision")))
            forget(schema.log_chunks, of_old_logs)
            forget(schema.log_wants, schema.log_wants.c.expires_at < transaction.now)
            return {
                "tombstones": forget(schema.tombstones, old),
                "idempotency_keys": forget(schema.idempotency_keys, schema.idempotency_keys.c.created_at < before),
                "logs": forget(schema.logs, schema.logs.c.touched_at < before),
            }

        return self._write(run)

    def backup(self, path: Path) -> None:
        backup.write(self._database, path, now=self._clock.now())

    def restore(self, path: Path) -> None:
        with backup.opened(path) as source:
            self._write(lambda transaction: backup.fill(transaction, source, database=self._database))
