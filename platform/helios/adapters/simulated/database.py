"""The SQLite file that is a simulated cell's world, apart from any process that looks at it."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from helios.adapters.simulated.clock import Pace
from helios.adapters.simulated.course import Request, Start
from helios.adapters.simulated.fleet import Incident
from helios.errors import ConflictError, NoSpaceError, UnavailableError
from helios.ports import Phase

FORMAT = 1
BUSY_S = 5.0
"""How long a call waits for another process that writes."""
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS paces (real REAL NOT NULL, cell REAL NOT NULL, speed REAL NOT NULL);
CREATE TABLE IF NOT EXISTS fences (uid TEXT PRIMARY KEY, highest INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checkpoints (uid TEXT PRIMARY KEY, step INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS starts (
    kind TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL, epoch INTEGER NOT NULL, workers INTEGER NOT NULL,
    nodes TEXT NOT NULL, request TEXT NOT NULL, started_at REAL NOT NULL, running_at REAL NOT NULL,
    over_at REAL NOT NULL, phase TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL,
    first_step INTEGER NOT NULL, steps INTEGER NOT NULL, step_s REAL NOT NULL, checkpoint_every REAL NOT NULL,
    stop_asked_at REAL NOT NULL, saved_step INTEGER NOT NULL, settled INTEGER NOT NULL, PRIMARY KEY (uid, epoch)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS starts_live ON starts (settled) WHERE settled = 0;
CREATE TABLE IF NOT EXISTS incidents (
    node TEXT NOT NULL, cause TEXT NOT NULL, number INTEGER NOT NULL, noticed_at REAL NOT NULL, lost_at REAL NOT NULL,
    back_at REAL NOT NULL, PRIMARY KEY (node, cause, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS windows (fault TEXT NOT NULL, since REAL NOT NULL, until REAL NOT NULL);
CREATE TABLE IF NOT EXISTS violations (
    at REAL NOT NULL, rule TEXT NOT NULL, uid TEXT NOT NULL, epoch INTEGER NOT NULL, message TEXT NOT NULL
);
"""
_FIELDS = tuple(field.name for field in fields(Start))
_SELECT = f"SELECT {', '.join(_FIELDS)} FROM starts"  # noqa: S608  # names of a dataclass
_INSERT = f"INSERT OR REPLACE INTO starts VALUES ({', '.join('?' for _ in _FIELDS)})"  # noqa: S608  # the same


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that no cell may be asked to do: `Overcommitted`, `TwoEpochs`, `StartedAfterSuccess`."""

    at: float
    rule: str
    uid: str
    epoch: int
    message: str


@dataclass(frozen=True, slots=True)
class Window:
    """A fault injected by hand that lasts: its name, and from when until when."""

    fault: str
    since: float
    until: float


class Database:
    """Rows in and out; what they mean is the world's. Not thread-safe.

    What was written survives the death of every process. Power loss may take the last moments
    (`synchronous=NORMAL`): nothing of what is simulated outlives it either.

    Raises:
        ConflictError: the file was written by a newer version.
        UnavailableError: another process holds the file for longer than `BUSY_S`.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        self._version = -1
        with _translated():
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_TABLES)
        with self.transaction():
            if int(self.meta("format", FORMAT)) > FORMAT:
                found = self.meta("format")
                raise ConflictError(f"{path} has format {found}; this version of HELIOS reads up to {FORMAT}")
            if self.meta("format") is None:
                self.set_meta("format", FORMAT)

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything or nothing; writers of all processes take turns."""
        with _translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def written_elsewhere(self) -> bool:
        """Whether another connection wrote since this was last asked (the first time: yes)."""
        with _translated():
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        before, self._version = self._version, version
        return bool(before != version)

    def meta(self, key: str, default: Any = None) -> Any:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else row[0]

    def set_meta(self, key: str, value: float | str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def paces(self) -> list[Pace]:
        rows = self._connection.execute("SELECT real, cell, speed FROM paces ORDER BY rowid")
        return [Pace(*row) for row in rows]

    def add_pace(self, pace: Pace) -> None:
        self._connection.execute("INSERT INTO paces VALUES (?, ?, ?)", (pace.real, pace.cell, pace.speed))

    def fence(self, uid: str) -> int:
        row = self._connection.execute("SELECT highest FROM fences WHERE uid = ?", (uid,)).fetchone()
        return int(row[0]) if row else 0

    def raise_fence(self, uid: str, epoch: int) -> None:
        statement = "INSERT INTO fences VALUES (?, ?) ON CONFLICT (uid) DO UPDATE SET highest = max(highest, ?)"
        self._connection.execute(statement, (uid, epoch, epoch))

    def checkpoint(self, uid: str) -> int:
        row = self._connection.execute("SELECT step FROM checkpoints WHERE uid = ?", (uid,)).fetchone()
        return int(row[0]) if row else 0

    def save_checkpoint(self, uid: str, step: int) -> None:
        statement = "INSERT INTO checkpoints VALUES (?, ?) ON CONFLICT (uid) DO UPDATE SET step = max(step, ?)"
        self._connection.execute(statement, (uid, step, step))

    def save(self, start: Start) -> None:
        row = {**asdict(start), "nodes": json.dumps(start.nodes), "request": json.dumps(asdict(start.request))}
        self._connection.execute(_INSERT, tuple(row[name] for name in _FIELDS))

    def find(self, uid: str, epoch: int) -> Start | None:
        with _translated():
            row = self._connection.execute(f"{_SELECT} WHERE uid = ? AND epoch = ?", (uid, epoch)).fetchone()
        return None if row is None else _start(row)

    def live(self) -> list[Start]:
        return [_start(row) for row in self._connection.execute(f"{_SELECT} WHERE settled = 0")]

    def starts(self) -> list[Start]:
        """All of them, also those of long ago, in the order of their beginning."""
        return [_start(row) for row in self._connection.execute(f"{_SELECT} ORDER BY started_at, uid, epoch")]

    def succeeded(self, uid: str) -> bool:
        statement = "SELECT 1 FROM starts WHERE uid = ? AND settled AND phase = ? LIMIT 1"
        return self._connection.execute(statement, (uid, Phase.SUCCEEDED.value)).fetchone() is not None

    def incidents(self) -> list[Incident]:
        rows = self._connection.execute("SELECT * FROM incidents ORDER BY noticed_at, number")
        return [Incident(*row) for row in rows]

    def current_incidents(self, now: float) -> list[Incident]:
        """What is not over, and the last of every node and cause, in order."""
        last = "SELECT max(number) FROM incidents AS i WHERE i.node = incidents.node AND i.cause = incidents.cause"
        statement = f"SELECT * FROM incidents WHERE back_at > ? OR number = ({last}) ORDER BY noticed_at, number"  # noqa: S608
        return [Incident(*row) for row in self._connection.execute(statement, (now,))]

    def save_incident(self, incident: Incident) -> None:
        row = (*incident.key, *incident.moments())
        self._connection.execute("INSERT OR REPLACE INTO incidents VALUES (?, ?, ?, ?, ?, ?)", row)

    def windows(self, now: float) -> list[Window]:
        rows = self._connection.execute("SELECT fault, since, until FROM windows WHERE until > ?", (now,))
        return [Window(*row) for row in rows]

    def add_window(self, window: Window) -> None:
        self._connection.execute("INSERT INTO windows VALUES (?, ?, ?)", (window.fault, window.since, window.until))

    def violations(self) -> list[Violation]:
        rows = self._connection.execute("SELECT at, rule, uid, epoch, message FROM violations ORDER BY rowid")
        return [Violation(*row) for row in rows]

    def add_violation(self, found: Violation) -> None:
        row = (found.at, found.rule, found.uid, found.epoch, found.message)
        self._connection.execute("INSERT INTO violations VALUES (?, ?, ?, ?, ?)", row)


def _start(row: tuple[Any, ...]) -> Start:
    values = dict(zip(_FIELDS, row, strict=True))
    return replace(
        Start(**values),
        nodes=tuple(json.loads(values["nodes"])),
        request=_request(json.loads(values["request"])),
        phase=Phase(values["phase"]),
        settled=bool(values["settled"]),
    )


def _request(held: dict[str, Any]) -> Request:
    return Request(**{**held, "devices": tuple(held.get("devices", ()))})


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        code = error.sqlite_errorcode & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise NoSpaceError(f"the disk of the simulated cell is full ({error})") from error
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise UnavailableError(f"the simulated cell is in another process's hands ({error})") from error
        raise
    except sqlite3.ProgrammingError as error:
        raise UnavailableError(f"the simulated cell was closed ({error})") from error
