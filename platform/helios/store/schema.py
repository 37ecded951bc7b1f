"""The tables, as the newest migration leaves them; a test holds the two to each other."""

import sqlalchemy as sa

HEAD = 2
"""Number of the newest migration in `migrations/versions`."""

Text = sa.String().with_variant(sa.String(collation="C"), "postgresql")
"""Text that sorts by code point on every database, whatever the locale of the server."""
Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""64 bits; SQLite calls its 64-bit key INTEGER."""

metadata = sa.MetaData()

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", Text, primary_key=True),
    sa.Column("value", Number, nullable=False),
)

records = sa.Table(
    "records",
    metadata,
    sa.Column("kind", Text, primary_key=True),
    sa.Column("name", Text, primary_key=True),
    sa.Column("uid", Text, nullable=False, unique=True),
    sa.Column("generation", Number, nullable=False),
    sa.Column("resource_version", Number, nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("annotations", sa.JSON, nullable=False),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("status", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("deleted_at", sa.Float, nullable=True),
    sa.Column("finalizers", sa.JSON, nullable=False),
    sa.Index("records_by_version", "resource_version"),
)

tombstones = sa.Table(
    "tombstones",
    metadata,
    sa.Column("uid", Text, primary_key=True),
    sa.Column("kind", Text, nullable=False),
    sa.Column("name", Text, nullable=False),
    sa.Column("revision", Number, nullable=False),
    sa.Column("time", sa.Float, nullable=False),
    sa.Index("tombstones_by_revision", "revision"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("number", Number, primary_key=True, autoincrement=True),
    sa.Column("revision", Number, nullable=False),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("kind", Text, nullable=False),
    sa.Column("name", Text, nullable=False),
    sa.Column("uid", Text, nullable=False),
    sa.Column("type", Text, nullable=False),
    sa.Column("reason", Text, nullable=False),
    sa.Column("message", Text, nullable=False),
    sa.Index("events_of", "kind", "name", "number"),
    sqlite_autoincrement=True,
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("number", Number, primary_key=True, autoincrement=True),
    sa.Column("revision", Number, nullable=False),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("actor", Text, nullable=False),
    sa.Column("request", Text, nullable=False),
    sa.Column("verb", Text, nullable=False),
    sa.Column("kind", Text, nullable=False),
    sa.Column("name", Text, nullable=False),
    sa.Column("outcome", Text, nullable=False),
    sa.Column("detail", Text, nullable=False),
    sa.Index("audit_of", "kind", "name", "number"),
    sa.Index("audit_by", "actor", "number"),
    sqlite_autoincrement=True,
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("key", Text, primary_key=True),
    sa.Column("digest", Text, nullable=False),
    sa.Column("kind", Text, nullable=False),
    sa.Column("name", Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", Text, primary_key=True),
    sa.Column("holder", Text, nullable=False),
    sa.Column("token", Number, nullable=False),
    sa.Column("renewals", Number, nullable=False),
    sa.Column("term_s", sa.Float, nullable=False),
    sa.Column("address", Text, nullable=False),
)

reports = sa.Table(
    "reports",
    metadata,
    sa.Column("cell", Text, primary_key=True),
    sa.Column("generation", Number, nullable=False),
    sa.Column("sequence", Number, nullable=False),
    sa.Column("version", Number, nullable=False, index=True),
    sa.Column("received_at", sa.Float, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
)

log_wants = sa.Table(
    "log_wants",
    metadata,
    sa.Column("uid", Text, primary_key=True),
    sa.Column("epoch", Number, primary_key=True),
    sa.Column("cell", Text, nullable=False, index=True),
    sa.Column("start", Number, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
)

logs = sa.Table(
    "logs",
    metadata,
    sa.Column("uid", Text, primary_key=True),
    sa.Column("epoch", Number, primary_key=True),
    sa.Column("size", Number, nullable=True),
    sa.Column("touched_at", sa.Float, nullable=False),
)

log_chunks = sa.Table(
    "log_chunks",
    metadata,
    sa.Column("uid", Text, primary_key=True),
    sa.Column("epoch", Number, primary_key=True),
    sa.Column("start", Number, primary_key=True),
    sa.Column("stop", Number, nullable=False),
    sa.Column("written_at", sa.Float, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

allocations = sa.Table(
    "allocations",
    metadata,
    sa.Column("uid", Text, primary_key=True),
    sa.Column("epoch", Number, primary_key=True),
    sa.Column("kind", Text, nullable=False),
    sa.Column("name", Text, nullable=False),
    sa.Column("tenant", Text, nullable=False),
    sa.Column("cell", Text, nullable=False),
    sa.Column("qos", Text, nullable=False),
    sa.Column("accelerator", Text, nullable=False),
    sa.Column("gpus", Number, nullable=False),
    sa.Column("millicpus", Number, nullable=False),
    sa.Column("opened_at", sa.Float, nullable=False),
    sa.Column("bucket", Text, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("closed_at", sa.Float, nullable=True),
    sa.Column("seconds", sa.JSON, nullable=False),
    sa.Index("allocations_by_time", "opened_at", "uid", "epoch"),
    sa.Index("allocations_by_end", "closed_at"),
)
