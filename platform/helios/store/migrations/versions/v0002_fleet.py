"""What many replicas and cells need: the feed of deletions, leases, audit, reports, logs and allocations."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

Text = sa.String().with_variant(sa.String(collation="C"), "postgresql")
Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# The release before deletes without a tombstone. Its deletion takes the next revision after it has deleted; this
# release writes the tombstone first, so that the trigger leaves its deletions alone.
TOMBSTONES_FOR_THE_RELEASE_BEFORE = """
CREATE TRIGGER records_gone AFTER DELETE ON records
WHEN NOT EXISTS (SELECT 1 FROM tombstones WHERE uid = OLD.uid)
BEGIN
    INSERT INTO tombstones (uid, kind, name, revision, time)
    SELECT OLD.uid, OLD.kind, OLD.name, value + 1, (julianday('now') - 2440587.5) * 86400.0
    FROM meta WHERE key = 'revision';
END
"""


def upgrade() -> None:
    _feed()
    _audit()
    _leases_and_reports()
    _logs()
    _allocations()
    meta = sa.table("meta", sa.column("key"), sa.column("value"))
    first = {"report_version": 0, "compacted_revision": 0, "min_reader": 1}
    op.bulk_insert(meta, [{"key": key, "value": value} for key, value in first.items()])


def _feed() -> None:
    op.create_index("records_by_version", "records", ["resource_version"])
    op.create_table(
        "tombstones",
        sa.Column("uid", Text, primary_key=True),
        sa.Column("kind", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("revision", Number, nullable=False),
        sa.Column("time", sa.Float, nullable=False),
    )
    op.create_index("tombstones_by_revision", "tombstones", ["revision"])
    if op.get_bind().dialect.name == "sqlite":
        op.execute(TOMBSTONES_FOR_THE_RELEASE_BEFORE)


def _audit() -> None:
    op.create_table(
        "audit",
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
        sqlite_autoincrement=True,
    )
    op.create_index("audit_of", "audit", ["kind", "name", "number"])
    op.create_index("audit_by", "audit", ["actor", "number"])


def _leases_and_reports() -> None:
    op.create_table(
        "leases",
        sa.Column("name", Text, primary_key=True),
        sa.Column("holder", Text, nullable=False),
        sa.Column("token", Number, nullable=False),
        sa.Column("renewals", Number, nullable=False),
        sa.Column("term_s", sa.Float, nullable=False),
        sa.Column("address", Text, nullable=False),
    )
    op.create_table(
        "reports",
        sa.Column("cell", Text, primary_key=True),
        sa.Column("generation", Number, nullable=False),
        sa.Column("sequence", Number, nullable=False),
        sa.Column("version", Number, nullable=False, index=True),
        sa.Column("received_at", sa.Float, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
    )


def _logs() -> None:
    op.create_table(
        "log_wants",
        sa.Column("uid", Text, primary_key=True),
        sa.Column("epoch", Number, primary_key=True),
        sa.Column("cell", Text, nullable=False, index=True),
        sa.Column("start", Number, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
    )
    op.create_table(
        "logs",
        sa.Column("uid", Text, primary_key=True),
        sa.Column("epoch", Number, primary_key=True),
        sa.Column("size", Number, nullable=True),
        sa.Column("touched_at", sa.Float, nullable=False),
    )
    op.create_table(
        "log_chunks",
        sa.Column("uid", Text, primary_key=True),
        sa.Column("epoch", Number, primary_key=True),
        sa.Column("start", Number, primary_key=True),
        sa.Column("stop", Number, nullable=False),
        sa.Column("written_at", sa.Float, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def _allocations() -> None:
    op.create_table(
        "allocations",
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
    )
    op.create_index("allocations_by_time", "allocations", ["opened_at", "uid", "epoch"])
    op.create_index("allocations_by_end", "allocations", ["closed_at"])
