"""A database of an earlier release is brought up to date, with nothing lost, while both releases run."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from helios.errors import UnavailableError
from helios.spec import from_json
from helios.store import Change, Gone, Record, migrations, open_store, schema
from helios.store.opening import database_at

VERSION_1 = """
CREATE TABLE meta ("key" VARCHAR NOT NULL, value INTEGER NOT NULL, PRIMARY KEY ("key"));
CREATE TABLE records (kind VARCHAR NOT NULL, name VARCHAR NOT NULL, uid VARCHAR NOT NULL, generation INTEGER NOT NULL,
    resource_version INTEGER NOT NULL, labels JSON NOT NULL, annotations JSON NOT NULL, spec JSON NOT NULL,
    status JSON NOT NULL, created_at FLOAT NOT NULL, deleted_at FLOAT, finalizers JSON NOT NULL,
    PRIMARY KEY (kind, name), UNIQUE (uid));
CREATE TABLE events (number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, revision INTEGER NOT NULL, time FLOAT NOT NULL,
    kind VARCHAR NOT NULL, name VARCHAR NOT NULL, uid VARCHAR NOT NULL, type VARCHAR NOT NULL, reason VARCHAR NOT NULL,
    message VARCHAR NOT NULL);
CREATE INDEX events_of ON events (kind, name, number);
CREATE TABLE idempotency_keys ("key" VARCHAR NOT NULL, digest VARCHAR NOT NULL, kind VARCHAR NOT NULL,
    name VARCHAR NOT NULL, created_at FLOAT NOT NULL, PRIMARY KEY ("key"));
INSERT INTO meta VALUES ('schema_version', 1), ('revision', 3);
INSERT INTO records VALUES
    ('Job', 'old', 'uid-old', 2, 3, '{"team": "a"}', '{}', '{"entrypoint": "true", "seed": 1180591620717411303424}',
     '{"state": "Running"}', 1790000000.5, NULL, '["helios/stop"]'),
    ('Job', 'going', 'uid-going', 1, 2, '{}', '{}', '{"entrypoint": "true"}', '{}', 1790000001.5, 1790000002.5, '[]');
INSERT INTO events (revision, time, kind, name, uid, type, reason, message) VALUES
    (1, 1790000000.5, 'Job', 'old', 'uid-old', 'Normal', 'Accepted', 'Job ''old'' accepted'),
    (3, 1790000003.5, 'Job', 'old', 'uid-old', 'Warning', 'Restarted', 'again');
INSERT INTO idempotency_keys VALUES
    ('k', '0b5f92f3a7f9c5bb5f5c1b0b1d61b6f6b4f7d0f1e5e7e0b3d4d6c9b6f2e3a1c0', 'Job', 'old', 1790000000.5);
"""
"""What the first release makes (`PRAGMA journal_mode=WAL` beside it), with rows in every table."""


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    path = tmp_path / "helios.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript(VERSION_1)
    connection.close()
    return path


def test_database_of_the_first_release_is_migrated_with_nothing_lost(version_1: Path) -> None:
    """Every record, event and counter is as it was, to the last digit, and goes on from there."""
    store = open_store(version_1)
    old, going = store.get("Job", "old"), store.get("Job", "going")
    assert old == Record(
        "Job",
        "old",
        uid="uid-old",
        generation=2,
        resource_version=3,
        labels={"team": "a"},
        spec={"entrypoint": "true", "seed": 2**70},
        status={"state": "Running"},
        created_at=1790000000.5,
        finalizers=("helios/stop",),
    )
    assert going.deleting
    assert [(event.number, event.revision, event.reason) for event in store.events()] == [
        (1, 1, "Accepted"),
        (2, 3, "Restarted"),
    ]
    assert store.changes(0).items == (going, old)
    assert store.save(old.with_status(state="Queued")).resource_version == 4
    store.close()


def test_old_server_works_beside_the_new_one(version_1: Path) -> None:
    """What the first release writes to the migrated database is seen by the new one: creations, changes, deletions."""
    store = open_store(version_1)
    before = store.revision()
    old_server = sqlite3.connect(version_1, isolation_level=None)
    # Its own check at start, then its own statements, in its own order.
    assert old_server.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone() == (1,)

    def write(*statements: str) -> None:
        old_server.execute("BEGIN IMMEDIATE")
        (revision,) = old_server.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()
        for statement in statements:
            old_server.execute(statement, {"revision": revision + 1} if ":revision" in statement else {})
        old_server.execute("COMMIT")

    count = "UPDATE meta SET value=:revision WHERE meta.\"key\" = 'revision'"
    event = (
        "INSERT INTO events (revision, time, kind, name, uid, type, reason, message) "
        "VALUES (:revision, 1790000005.0, 'Job', 'old', 'uid-old', 'Normal', 'Queued', '')"
    )
    insert = (
        "INSERT INTO records (kind, name, uid, generation, resource_version, labels, annotations, spec, status, "
        "created_at, deleted_at, finalizers) VALUES ('Job', 'new', 'uid-new', 1, :revision, '{}', '{}', '{}', "
        "'{\"state\": \"Pending\"}', 1790000004.0, NULL, '[]')"
    )
    update = (
        "UPDATE records SET kind='Job', name='old', uid='uid-old', generation=2, resource_version=:revision, "
        "labels='{}', annotations='{}', spec='{}', status='{\"state\": \"Queued\"}', created_at=1790000000.5, "
        "deleted_at=NULL, finalizers='[]' WHERE records.kind = 'Job' AND records.name = 'old'"
    )
    write(count, insert)
    write(count, update, event)
    write("DELETE FROM records WHERE records.kind = 'Job' AND records.name = 'going'", count)
    assert store.wait(before, 5.0) == before + 3
    assert store.changes(before).items == (
        store.get("Job", "new"),
        store.get("Job", "old"),
        Gone("Job", "going", "uid-going", before + 3),
    )
    written = store.save(store.get("Job", "old").with_status(state="Running"))
    store.remove(store.get("Job", "new"))
    assert old_server.execute("SELECT resource_version FROM records WHERE name = 'old'").fetchone() == (
        written.resource_version,
    )
    assert [item for item in store.changes(written.resource_version).items if isinstance(item, Gone)] == [
        Gone("Job", "new", "uid-new", store.revision())
    ]
    old_server.close()
    store.close()


def test_replacement_by_an_old_server_is_seen_as_gone_and_new(version_1: Path) -> None:
    """The first release deletes and inserts under one revision; followers hear both, the old uid first."""
    store = open_store(version_1)
    old_server = sqlite3.connect(version_1, isolation_level=None)
    old_server.executescript("""
        BEGIN IMMEDIATE;
        DELETE FROM records WHERE kind = 'Job' AND name = 'old';
        UPDATE meta SET value = 4 WHERE key = 'revision';
        INSERT INTO records VALUES ('Job', 'old', 'uid-2', 1, 4, '{}', '{}', '{}', '{}', 1790000009.0, NULL, '[]');
        COMMIT;
    """)
    gone, new = store.changes(3).items
    assert (gone, new) == (Gone("Job", "old", "uid-old", 4), store.get("Job", "old"))
    old_server.close()
    store.close()


OPENERS = 2
OPENER = """
import sys
from pathlib import Path
from helios.store import open_store

place = sys.argv[1]
sys.stdin.readline()
store = open_store(place if "://" in place else Path(place))
print(store.revision())
store.close()
"""


@pytest.mark.parametrize("kind", ["version-1", "sqlite", "postgres"])
def test_processes_that_open_at_once_migrate_once(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """All who start together find, or make, one whole schema."""
    places: dict[str, Callable[[], str]] = {
        "version-1": lambda: str(request.getfixturevalue("version_1")),
        "sqlite": lambda: str(tmp_path / "new.db"),
        "postgres": lambda: str(request.getfixturevalue("postgres_url_factory")(bare=True)),
    }
    place = places[kind]()
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(OPENERS)
    ]
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("\n")
        opener.stdin.flush()
    said = [opener.communicate(timeout=120) for opener in openers]
    assert said == [("3\n" if kind == "version-1" else "0\n", "")] * OPENERS


@pytest.mark.parametrize("kind", ["sqlite", "version-1", "postgres"])
def test_migrations_make_the_schema_that_the_code_has(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Alembic finds no difference between the migrated database and `schema.metadata`."""
    place: Path | str = tmp_path / "new.db"
    if kind == "version-1":
        place = request.getfixturevalue("version_1")
    elif kind == "postgres":
        place = request.getfixturevalue("postgres_url_factory")(bare=True)
    open_store(place).close()
    database = database_at(place)
    with database.writer.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), schema.metadata)
        version = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    database.close()
    assert (differences, version) == ([], f"{schema.HEAD:04}")


def test_head_is_the_newest_migration() -> None:
    """The number in the code and the scripts are raised together."""
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_current_head() == f"{schema.HEAD:04}"


def _set(place: Path | str, statement: str) -> None:
    open_store(place).close()
    database = database_at(place)
    with database.writer.begin() as connection:
        connection.execute(sa.text(statement))
    database.close()


def test_schema_of_a_later_release_that_this_one_can_work_with_is_opened(place: Path | str) -> None:
    """During a roll the new server migrates first; the old one may still be restarted."""
    _set(place, "UPDATE alembic_version SET version_num = '0099'")
    store = open_store(place)
    document = {"apiVersion": "helios/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {"entrypoint": "true"}}
    assert store.apply(from_json(document)).change is Change.CREATED
    store.close()
    _set(place, "UPDATE records SET generation = 1 WHERE 1 = 0")
    database = database_at(place)
    with database.reader.connect() as connection:
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == "0099"
    database.close()


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (
            ("UPDATE alembic_version SET version_num = '0099'", "UPDATE meta SET value = 50 WHERE key = 'min_reader'"),
            r"has schema 0099; this HELIOS reads up to 0002",
        ),
        (
            ("UPDATE meta SET value = 99 WHERE key = 'schema_version'",),
            r"has schema version 99; this HELIOS reads version 1",
        ),
    ],
)
def test_schema_that_this_release_cannot_work_with_is_refused(
    place: Path | str, statements: tuple[str, ...], expected: str
) -> None:
    """The error says both versions, and nothing is changed."""
    for statement in statements:
        _set(place, statement)
    with pytest.raises(UnavailableError, match=expected):
        open_store(place)
