"""Leases: who leads, and the fencing tokens that keep a paused leader from writing."""

from dataclasses import replace

import sqlalchemy as sa

from helios.errors import ConflictError, FencedError
from helios.store import rows, schema
from helios.store.part import Part
from helios.store.records import Lease, Record
from helios.store.transaction import Transaction

_LEASE = sa.select(schema.leases).where(schema.leases.c.name == sa.bindparam("of_name"))


class Leases(Part):
    """The part of `helios.store.Store` under "Leases"."""

    __slots__ = ()

    def lease(self, name: str) -> Lease | None:
        return self._database.read(lambda connection: _lease(connection, name))

    def take_lease(self, name: str, holder: str, *, term_s: float, seen: Lease | None, address: str = "") -> Lease:
        def run(transaction: Transaction) -> Lease:
            stored = _lease(transaction.connection, name)
            if stored != seen:
                raise ConflictError(f"the lease {name!r} was renewed or taken meanwhile")
            token = 1 if stored is None else stored.token + 1
            taken = Lease(name, holder, token=token, renewals=0, term_s=term_s, address=address)
            self._put(transaction, taken)
            transaction.put_token(name, token)
            transaction.note_write(self._actor, "took", Record("Lease", name))
            return taken

        return self._write(run)

    def renew_lease(self, lease: Lease) -> Lease:
        def run(transaction: Transaction) -> Lease:
            stored = _lease(transaction.connection, lease.name)
            if stored is None or (stored.holder, stored.token) != (lease.holder, lease.token):
                holder = stored.holder if stored else ""
                raise FencedError(f"the lease {lease.name!r} was taken by {holder or 'nobody, it was given up'}")
            renewed = replace(lease, renewals=stored.renewals + 1)
            self._put(transaction, renewed)
            return renewed

        return self._write(run)

    def release_lease(self, lease: Lease) -> None:
        """The lease stays, with its token and without holder."""

        def run(transaction: Transaction) -> None:
            stored = _lease(transaction.connection, lease.name)
            if stored is not None and (stored.holder, stored.token) == (lease.holder, lease.token):
                self._put(transaction, replace(stored, holder="", renewals=stored.renewals + 1, address=""))

        self._write(run)

    def _put(self, transaction: Transaction, lease: Lease) -> None:
        transaction.upsert(schema.leases, rows.fields(lease))


def _lease(connection: sa.Connection, name: str) -> Lease | None:
    row = connection.execute(_LEASE, {"of_name": name}).one_or_none()
    return None if row is None else rows.lease(row)
