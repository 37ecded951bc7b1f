"""Backup and restore: one file, compressed lines of JSON, the same for either database.

The first line says what it is and how many rows of each table follow; then a line a row, `[table, {column: value}]`;
the last line is the SHA-256 of everything before it. A file without it is not whole, and is not restored.
"""

import base64
import errno
import gzip
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa

import helios
from helios.errors import ConflictError, HeliosError, InputError, NoSpaceError, UnavailableError
from helios.store import schema
from helios.store.clock import timestamp
from helios.store.database import Database
from helios.store.transaction import Transaction

FORMAT = "helios-backup/1"
TABLES = tuple(table for table in schema.metadata.sorted_tables if table is not schema.log_wants)
"""What is kept. Who wants to read which log is forgotten: it is asked again within seconds."""
COUNTERS = ("revision", "report_version", "compacted_revision")
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Source:
    """A backup that was read to its end once, and is whole."""

    path: Path
    header: Mapping[str, Any]

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        with gzip.open(self.path, "rt", encoding="utf-8") as file:
            next(file)
            for line in file:
                content = json.loads(line)
                if isinstance(content, list):
                    yield content[0], content[1]


def write(database: Database, path: Path, *, now: float) -> None:
    """See `Store.backup`."""
    if path.exists():
        raise ConflictError(f"{path} exists", hint="name a file that does not")
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                database.read_snapshot(lambda connection: _dump(connection, file, now=now))
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
            _sync_folder(path.parent)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
    except OSError as error:
        raise _file_error(path, error) from error


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Read a backup to its end and check that it is whole; `InputError` where it is none, or of a later release."""
    try:
        header = _checked(path)
        if header["schema"] > schema.HEAD:
            raise InputError(
                f"{path} was written by HELIOS {header['helios']} (schema {header['schema']}); "
                f"this one reads schemas up to {schema.HEAD}",
                hint="restore it with that version or a newer one",
            )
        yield Source(path, header)
    except OSError as error:
        raise _file_error(path, error) from error


def fill(transaction: Transaction, source: Source, *, database: Database) -> None:
    """See `Store.restore`: everything in the one transaction."""
    transaction.flush()
    connection = transaction.connection
    if any(_has_rows(connection, table) for table in TABLES if table is not schema.meta):
        raise ConflictError(
            f"the store {database.name} is not empty", hint="restore into a new file or an empty database"
        )
    tables = {table.name: table for table in TABLES}
    for name, group in itertools.groupby(source.rows(), key=lambda row: row[0]):
        rows = (row for _, row in group)
        while page := list(itertools.islice(rows, PAGE)):
            if name == schema.meta.name:
                _restore_counters(transaction, page)
            else:
                transaction.execute(tables[name].insert(), [_restored(name, row) for row in page])
    for table in (schema.events, schema.audit):
        database.fix_numbering(connection, table)


def _has_rows(connection: sa.Connection, table: sa.Table) -> bool:
    return connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is not None


def _restore_counters(transaction: Transaction, page: list[dict[str, Any]]) -> None:
    for row in page:
        if row["key"] in COUNTERS:
            transaction.count(row["key"], to=row["value"])


def _restored(table: str, row: dict[str, Any]) -> dict[str, Any]:
    if table == schema.leases.name:
        # Without holder: the next one takes it under a token above every one of the backup.
        return {**row, "holder": "", "address": ""}
    if table == schema.log_chunks.name:
        return {**row, "data": base64.b64decode(row["data"])}
    return row


def _dump(connection: sa.Connection, file: IO[bytes], *, now: float) -> None:
    counts = {table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in TABLES}
    header = {
        "format": FORMAT,
        "helios": helios.__version__,
        "schema": schema.HEAD,
        "revision": connection.scalar(sa.select(schema.meta.c.value).where(schema.meta.c.key == "revision")),
        "written_at": timestamp(now),
        "counts": counts,
    }
    digest = hashlib.sha256()
    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0, compresslevel=6) as packed:

        def line(content: object) -> None:
            data = json.dumps(content, separators=(",", ":"), default=_text).encode() + b"\n"
            digest.update(data)
            packed.write(data)

        line(header)
        for table in TABLES:
            query = sa.select(table).order_by(*table.primary_key.columns).execution_options(yield_per=PAGE)
            for row in connection.execute(query).mappings():
                line([table.name, dict(row)])
        packed.write(json.dumps({"sha256": digest.hexdigest()}).encode() + b"\n")


def _checked(path: Path) -> Mapping[str, Any]:
    """The header of a whole backup; raises `InputError` for anything else."""
    digest = hashlib.sha256()
    last = b""
    try:
        with gzip.open(path, "rb") as file:
            header = json.loads(file.readline())
            if not isinstance(header, dict) or header.get("format") != FORMAT:
                raise InputError(f"{path} is no backup of HELIOS: expected the format {FORMAT!r}")
            file.seek(0)
            for line in file:
                digest.update(last)
                last = line
            trailer = json.loads(last)
    except (EOFError, ValueError, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is no backup of HELIOS, or not a whole one: {error}") from error
    if trailer != {"sha256": digest.hexdigest()}:
        raise InputError(f"{path} is damaged or not whole: its checksum is not that of its content")
    return header


def _text(value: object) -> str:
    """The bytes of a log, which JSON has no type for."""
    assert isinstance(value, bytes), f"a column holds {type(value).__name__}"
    return base64.b64encode(value).decode()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file_error(path: Path, error: OSError) -> HeliosError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(f"the disk is full: {path} cannot be written", hint="free some space, then try again")
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return InputError(f"{path}: {error.strerror}")
    return UnavailableError(f"{path} cannot be read or written: {error.strerror or error}")
