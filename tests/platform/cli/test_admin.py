"""What `helios admin` does with the store: backup, restore, migrations, compaction."""

import threading
from pathlib import Path
from typing import Any

import pytest

from helios.control import ControlPlane
from helios.spec import from_json
from helios.store import open_store

DOCUMENT = {
    "apiVersion": "helios/v1",
    "kind": "Tenant",
    "metadata": {"name": "research"},
    "spec": {"weight": 2},
}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A store with one tenant in it."""
    path = tmp_path / "fleet.db"
    store = open_store(path)
    store.apply(from_json(DOCUMENT))
    store.close()
    return path


def test_backup_is_restored_into_an_empty_database(cli: Any, database: Path) -> None:
    """What was there is there again, at the revision that it had."""
    saved = cli("admin", "backup", "fleet.backup", "--database", database)
    assert saved.code == 0, saved.err
    assert "fleet.backup written" in saved.out
    restored = cli("admin", "restore", "fleet.backup", "--database", "new.db")
    assert restored.code == 0, restored.err
    store = open_store(Path("new.db"))
    assert store.get("Tenant", "research").spec["weight"] == 2
    store.close()


def test_backup_does_not_write_over_a_file(cli: Any, database: Path) -> None:
    """The older file stays as it is."""
    Path("fleet.backup").write_text("precious")
    result = cli("admin", "backup", "fleet.backup", "--database", database)
    assert result.code == 2
    assert Path("fleet.backup").read_text() == "precious"


@pytest.mark.parametrize("content", [None, b"no backup at all"])
def test_restore_of_what_is_no_backup_leaves_nothing(cli: Any, content: bytes | None) -> None:
    """A file that is missing or something else is an error, and no database is left behind."""
    if content is not None:
        Path("bad.backup").write_bytes(content)
    result = cli("admin", "restore", "bad.backup", "--database", "new.db")
    assert result.code == 2, result.err
    assert "Traceback" not in result.err
    assert not list(Path().glob("new.db*"))


def test_restore_is_refused_where_something_is(cli: Any, database: Path) -> None:
    """A store with anything in it is never written over."""
    cli("admin", "backup", "fleet.backup", "--database", database)
    result = cli("admin", "restore", "fleet.backup", "--database", database)
    assert result.code == 2
    assert "empty" in result.err


def test_restore_is_refused_while_a_server_leads(cli: Any, database: Path, tmp_path: Path) -> None:
    """A leader that renews its lease is named; one that is gone does not hold a restore up for longer than its term."""
    cli("admin", "backup", "fleet.backup", "--database", database)
    led = open_store(tmp_path / "led.db")
    lease = led.take_lease("control", "replica-a", term_s=30.0, seen=None, address="http://a:8600")
    stop = threading.Event()

    def renew() -> None:
        current = lease
        while not stop.wait(0.05):
            current = led.renew_lease(current)

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        result = cli("admin", "restore", "fleet.backup", "--database", tmp_path / "led.db")
    finally:
        stop.set()
        renewing.join()
        led.close()
    assert result.code == 2
    assert "replica-a (http://a:8600) leads" in result.err


def test_lease_of_a_server_that_is_gone_is_not_a_leaders(cli: Any, database: Path, tmp_path: Path) -> None:
    """A lease that stands still for its term is nobody's; what else speaks against the restore is then said."""
    cli("admin", "backup", "fleet.backup", "--database", database)
    left = open_store(tmp_path / "left.db")
    left.take_lease("control", "replica-a", term_s=0.2, seen=None)
    left.close()
    result = cli("admin", "restore", "fleet.backup", "--database", tmp_path / "left.db")
    assert result.code == 2
    assert "not empty" in result.err
    assert "leads" not in result.err


def test_migrate_and_compact_say_what_they_did(cli: Any, database: Path) -> None:
    """Both act on the database that is named, and end with a sentence."""
    assert "up to date" in cli("admin", "migrate", "--database", database).out
    assert "0 tombstones" in cli("admin", "compact", "--older-than", "30d", "--database", database).out
    assert cli("admin", "compact", "--older-than", "soon", "--database", database).code == 2


def test_state_folder_is_where_the_database_is_without_a_name(cli: Any, tmp_path: Path) -> None:
    """Without --database it is the state folder's; without that folder it is an error that says what to type."""
    nothing = cli("admin", "migrate")
    assert nothing.code == 2
    assert "--database" in nothing.err
    (tmp_path / ".helios").mkdir()
    missing = cli("admin", "migrate")
    assert missing.code == 2
    assert "there is no database at" in missing.err
    plane = ControlPlane(open_store(tmp_path / ".helios" / "helios.db"))
    plane.store.close()
    assert cli("admin", "migrate").code == 0
