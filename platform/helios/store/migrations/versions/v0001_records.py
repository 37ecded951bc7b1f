"""What the first release has: records, events, idempotency keys and one counter."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Text = sa.String().with_variant(sa.String(collation="C"), "postgresql")
Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    meta = op.create_table("meta", sa.Column("key", Text, primary_key=True), sa.Column("value", Number, nullable=False))
    op.create_table(
        "records",
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
    )
    op.create_table(
        "events",
        sa.Column("number", Number, primary_key=True, autoincrement=True),
        sa.Column("revision", Number, nullable=False),
        sa.Column("time", sa.Float, nullable=False),
        sa.Column("kind", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("uid", Text, nullable=False),
        sa.Column("type", Text, nullable=False),
        sa.Column("reason", Text, nullable=False),
        sa.Column("message", Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("events_of", "events", ["kind", "name", "number"])
    op.create_table(
        "idempotency_keys",
        sa.Column("key", Text, primary_key=True),
        sa.Column("digest", Text, nullable=False),
        sa.Column("kind", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.bulk_insert(meta, [{"key": "schema_version", "value": 1}, {"key": "revision", "value": 0}])
