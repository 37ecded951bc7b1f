"""What the cell remembers of every start, on disk, so that it can be asked again after any crash."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from helios.durable import read_json, write_json
from helios.ports import Launch, LaunchStatus, Phase


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop that was asked for: notice at `asked_at`, the engine told at `told_at` once `deadline` had passed."""

    asked_at: float
    deadline: float
    told_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a job or service.

    Attributes:
        instance: the start of Ray that took it; empty until Ray took it.
        final: its last status as JSON, once it is over; never asked again after that.
        nodes: the node of each worker.
    """

    kind: str
    name: str
    uid: str
    epoch: int
    workers: int
    spec: dict[str, Any]
    context: dict[str, str]
    at: float
    instance: str = ""
    stop: Stop | None = None
    final: dict[str, Any] | None = None
    nodes: tuple[str, ...] = ()

    @classmethod
    def of(cls, launch: Launch, *, at: float) -> "Start":
        return cls(
            kind=launch.kind,
            name=launch.name,
            uid=launch.uid,
            epoch=launch.epoch,
            workers=launch.workers,
            spec=dict(launch.spec),
            context=dict(launch.context),
            at=at,
            nodes=launch.nodes,
        )

    @property
    def submission(self) -> str:
        return f"helios-{self.uid}-e{self.epoch}"

    def ended(self, status: LaunchStatus) -> "Start":
        data = asdict(status)
        return replace(self, final={**data, "phase": status.phase.value, "progress": dict(status.progress)})

    def status(self, phase: Phase, reason: str = "", message: str = "", **more: Any) -> LaunchStatus:
        return LaunchStatus(uid=self.uid, epoch=self.epoch, phase=phase, reason=reason, message=message, **more)

    def last_status(self) -> LaunchStatus | None:
        return None if self.final is None else LaunchStatus(**{**self.final, "phase": Phase(self.final["phase"])})


@dataclass(frozen=True, slots=True)
class History:
    """All starts of one job or service; `highest` is the fencing epoch."""

    highest: int = 0
    starts: dict[int, Start] = field(default_factory=dict)

    def with_start(self, start: Start) -> "History":
        return History(highest=max(self.highest, start.epoch), starts={**self.starts, start.epoch: start})


class Records:
    """One file per uid; a lock per uid orders what is done to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._locks: dict[str, threading.RLock] = {}

    @contextmanager
    def of(self, uid: str) -> Iterator["Entry"]:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", uid):
            raise ValueError(f"uid {uid!r} cannot name a file")
        with self._guard:
            lock = self._locks.setdefault(uid, threading.RLock())
        with lock:
            yield Entry(self._folder / f"{uid}.json")

    def all(self) -> Iterator[History]:
        for path in sorted(self._folder.glob("*.json")):
            yield _load(path)


class Entry:
    """The history of one uid while its lock is held."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.history = _load(path)

    def start(self, epoch: int) -> Start | None:
        return self.history.starts.get(epoch)

    def save(self, start: Start) -> Start:
        self.history = self.history.with_start(start)
        starts = {str(epoch): asdict(one) for epoch, one in self.history.starts.items()}
        write_json(self._path, {"highest": self.history.highest, "starts": starts}, private=True)
        return start


def _load(path: Path) -> History:
    data = read_json(path)
    if data is None:
        return History()
    starts = {int(epoch): _start(one) for epoch, one in data["starts"].items()}
    return History(highest=data["highest"], starts=starts)


def _start(data: dict[str, Any]) -> Start:
    stop = Stop(**data["stop"]) if data["stop"] else None
    return Start(**{**data, "stop": stop, "nodes": tuple(data.get("nodes", ()))})
