"""`helios admin`: what an operator does with the store itself, and with what it remembers."""

import difflib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text

from helios.cli.client import KINDS, Client, Object, connect, kind_of
from helios.cli.durations import seconds_in
from helios.cli.endpoint import find_home
from helios.cli.output import Format, FormatOption, err, examples, out, show, table_of
from helios.cli.recorded import recorded
from helios.errors import ConflictError, HeliosError, InputError

if TYPE_CHECKING:
    from helios.store import Lease, Store

LOOK_EVERY_S = 0.2
MOST_DIFFERENCES = 200
"""Lines of a difference that are shown."""

admin_app = typer.Typer(no_args_is_help=True, help="Operating the store: backup, restore, migrations, the audit log.")


class Moment(StrEnum):
    NOW = "now"
    LAST = "last"


DatabaseOption = Annotated[
    str,
    typer.Option(
        envvar="HELIOS_DATABASE",
        help="A SQLite file, or postgresql://USER@HOST/DATABASE; that of the state folder where it is not set.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    app.add_typer(admin_app, name="admin", rich_help_panel="Fleet")


@admin_app.command(
    epilog=examples(
        "helios admin backup helios-2030-01-01.backup",
        "helios admin backup fleet.backup --database postgresql://helios@db.internal/helios",
    )
)
def backup(
    file: Annotated[Path, typer.Argument(help="File to write; it must not be there yet.", show_default=False)],
    database: DatabaseOption = "",
) -> None:
    """Write all that the store remembers, as of one moment, into one file. Servers may go on meanwhile."""
    with _store(database) as store:
        store.backup(file)
    out().print(f"{escape(str(file))} written, {file.stat().st_size:,} bytes", soft_wrap=True)


@admin_app.command(
    epilog=examples(
        "helios admin restore fleet.backup --database new.db",
        "helios admin restore fleet.backup --database postgresql://helios@db.internal/helios",
    )
)
def restore(
    file: Annotated[Path, typer.Argument(help="A backup, of either database.", show_default=False)],
    database: DatabaseOption = "",
) -> None:
    """Fill an empty store from a backup. Refused while a server leads, and where the store is not empty."""
    if not file.is_file():
        raise InputError(f"{file} is not a file", hint="`helios admin backup FILE` writes one")
    place = _place(database)
    fresh = isinstance(place, Path) and not place.exists()
    try:
        with _store(database, create=True) as store:
            _refuse_where_led(store)
            store.restore(file)
            revision = store.revision()
    except HeliosError:
        if fresh and isinstance(place, Path):  # what was made only to be filled
            for part in ("", "-wal", "-shm"):
                place.with_name(place.name + part).unlink(missing_ok=True)
        raise
    out().print(f"restored from {escape(str(file))}, at revision {revision}", soft_wrap=True)


@admin_app.command(epilog=examples("helios admin migrate", "helios admin migrate --database helios.db"))
def migrate(database: DatabaseOption = "") -> None:
    """Bring the database to the form that this release works with, as a server does when it starts."""
    with _store(database) as store:
        revision = store.revision()
    out().print(f"the database is up to date, at revision {revision}")


@admin_app.command(epilog=examples("helios admin compact", "helios admin compact --older-than 90d"))
def compact(
    older_than: Annotated[str, typer.Option(metavar="AGE", help="What is forgotten.")] = "30d",
    database: DatabaseOption = "",
) -> None:
    """Forget idempotency keys, kept logs and traces of what was deleted. Objects, events and usage stay."""
    before = time.time() - seconds_in(older_than, option="--older-than")
    with _store(database) as store:
        forgotten = store.compact(before=before)
    out().print(", ".join(f"{count} {what.replace('_', ' ')}" for what, count in forgotten.items()) + " forgotten")


@admin_app.command(epilog=examples("helios admin dump > fleet.json", "helios admin dump -o yaml"))
def dump(how: FormatOption = Format.JSON) -> None:
    """Print the whole fleet as the API shows it now: who leads, every object, the queue."""
    with connect() as client:
        data: Object = {"status": client.status(), "queue": client.queue()["items"]}
        data |= {plural: list(client.list(kind)) for kind, plural in KINDS.items()}
    counts = [(name, str(len(items))) for name, items in data.items() if name != "status"]
    show(data, how, lambda: table_of(("WHAT", "COUNT"), counts))


@admin_app.command(
    epilog=examples("helios admin snapshot fleet.json", "helios admin snapshot --cycle last decided.json")
)
def snapshot(
    file: Annotated[
        Path | None, typer.Argument(help="File to write; standard output where it is left out.", show_default=False)
    ] = None,
    cycle: Annotated[
        Moment, typer.Option(help="Of now, or of the last scheduling cycle that was carried out.")
    ] = Moment.NOW,
) -> None:
    """Write what the scheduler knows (cells, tenants, queue, what runs, its policy) and what it decides on that.

    `helios admin replay` decides it again, and `helios simulate` goes on from it.
    """
    from helios.scheduler.codec import canonical

    with connect() as client:
        text = canonical(client.snapshot(cycle=cycle.value)) + "\n"
    if file is None:
        sys.stdout.write(text)
        return
    file.write_text(text, encoding="utf-8")
    out().print(f"{escape(str(file))} written, {file.stat().st_size:,} bytes", soft_wrap=True)


@admin_app.command(epilog=examples("helios admin replay fleet.json"))
def replay(
    file: Annotated[Path, typer.Argument(help="What `helios admin snapshot` wrote.", show_default=False)],
) -> None:
    """Decide on a recorded snapshot again; exit with 1 and show the difference where that is not what was decided."""
    from helios.scheduler import schedule
    from helios.scheduler.codec import decided

    known, policy, before = recorded(file)
    cycle = schedule(known, policy)
    differences = list(_differences(before, decided(cycle)))
    for line in differences[:MOST_DIFFERENCES]:
        out().print(line, markup=False, soft_wrap=True)
    if differences:
        more = len(differences) - MOST_DIFFERENCES
        out().print(f"... and {more} lines more" if more > 0 else "", end="\n" if more > 0 else "")
        err().print("decided otherwise than recorded", style="red")
        raise typer.Exit(1)
    counts = f"{len(cycle.admits)} starts, {len(cycle.changes)} stops, {len(cycle) - len(cycle.admits)} that wait"
    out().print(f"decided bit by bit as recorded: {counts}")


def _differences(before: Object, after: Object) -> Iterator[str]:
    """Lines of a diff between what was decided and what is."""
    if before == after:
        return
    old, new = (json.dumps(one, indent=1, sort_keys=True, ensure_ascii=False).splitlines() for one in (before, after))
    yield from difflib.unified_diff(old, new, "recorded", "decided now", lineterm="", n=2)


@admin_app.command(epilog=examples("helios admin audit --actor alice", "helios admin audit --kind job --name my-job"))
def audit(
    *,
    actor: Annotated[str, typer.Option(help="Only what this subject did.")] = "",
    kind: Annotated[str, typer.Option(help="Only of this kind.")] = "",
    name: Annotated[str, typer.Option(help="Only of this name.")] = "",
    how: FormatOption = Format.TABLE,
) -> None:
    """Show who wrote what, and what was refused to whom; oldest first."""
    wanted = {"actor": actor, "kind": _audited(kind), "name": name}
    with connect() as client:
        items = list(_entries(client, {key: value for key, value in wanted.items() if value}))
    show(items, how, lambda: table_of(_AUDIT, map(_row, items), empty="nothing was written yet"))


_AUDIT = ("TIME", "ACTOR", "DID", "TO", "OUTCOME", "DETAIL")


def _row(item: Mapping[str, Any]) -> list[str | Text]:
    outcome = Text(item["outcome"], style="" if item["outcome"] == "allowed" else "red")
    whom = f"{item['kind'].lower()}/{item['name']}"
    return [item["time"][:19], item["actor"], item["verb"], whom, outcome, item.get("detail") or "-"]


def _audited(kind: str) -> str:
    """Kinds of the audit log are more than those of documents."""
    return kind.capitalize() if kind.casefold() in {"token", "tokens", "lease"} else kind_of(kind) if kind else ""


def _entries(client: Client, wanted: dict[str, str]) -> Iterator[Object]:
    after = 0
    while page := client.audit(**wanted, after=after)["items"]:
        yield from page
        after = page[-1]["number"]


@contextmanager
def _store(database: str, *, create: bool = False) -> "Iterator[Store]":
    """Open the store that is meant; raises `InputError` where there is none and none is to be made."""
    from helios.store import open_store

    place = _place(database)
    if isinstance(place, Path) and not create and not place.is_file():
        raise InputError(f"there is no database at {place}", hint="--database names another one")
    store = open_store(place)
    try:
        yield store
    finally:
        store.close()


def _place(database: str) -> Path | str:
    if database:
        return database if "://" in database else Path(database)
    home = find_home()
    if home is None:
        raise InputError("no database was named, and there is no state folder here", hint="say --database")
    return home / "helios.db"


def _refuse_where_led(store: "Store") -> None:
    """Raise `ConflictError` where a server renews the lease; it is watched for its term, for clocks may differ."""
    from helios.control.plane import LEASE

    first = store.lease(LEASE)
    if first is None or not first.holder:
        return
    with err().status(f"looking whether {escape(first.holder)} still leads"):
        deadline = time.monotonic() + first.term_s
        while (now := store.lease(LEASE)) == first:
            if time.monotonic() > deadline:
                return
            time.sleep(LOOK_EVERY_S)
    if now is not None and now.holder:
        raise ConflictError(f"a server works on this database: {_who(now)} leads", hint="stop every server first")


def _who(lease: "Lease") -> str:
    return f"{lease.holder} ({lease.address})" if lease.address else lease.holder
