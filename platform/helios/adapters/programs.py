"""Programs that HELIOS starts and that outlive it: found again by what is on disk, ended exactly, never by name.

Each start gets a random mark in its environment, which every process it starts inherits. So all that belongs to one
start can be found and ended, also after the first process was killed and its children went to init.
"""

import os
import random
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from helios.durable import read_json, write_json
from helios.errors import EngineError

MARK = "HELIOS_PROGRAM"
NO_PID = -1
"""Of a start whose first process is not known yet; only its mark finds it."""
LOG_BYTES = 64 * 1024 * 1024
"""A program's log is put aside (one older is kept) at its next start when it is larger."""


@dataclass(frozen=True, slots=True)
class Handle:
    """One start of a program. A process id is only meant together with its start time."""

    pid: int
    created: float
    mark: str

    def is_alive(self) -> bool:
        if self.pid == NO_PID:
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(float(process.create_time()) - self.created) < 0.05 and _is_alive(process)
        except psutil.NoSuchProcess:
            return False

    def processes(self) -> list[psutil.Process]:
        """Return every living process of this start, whoever is its parent now; not what other programs it started."""
        found = {process.pid: process for process in marked({MARK: self.mark})}
        if self.is_alive():
            with suppress(psutil.NoSuchProcess):
                found.update({process.pid: process for process in self._family(psutil.Process(self.pid))})
        return list(found.values())

    def _family(self, head: psutil.Process) -> list[psutil.Process]:
        """The process and its descendants, less those that carry another program's mark, and their descendants."""
        family, others = [head], set()
        for process in head.children(recursive=True):  # parents come before their children
            with suppress(psutil.NoSuchProcess):
                if process.ppid() in others or _mark(process) not in {self.mark, ""}:
                    others.add(process.pid)
                else:
                    family.append(process)
        return family

    def uptime(self) -> float:
        return time.time() - self.created


class Program:
    """A detached program whose handle is kept in a file."""

    def __init__(self, name: str, record: Path) -> None:
        self.name = name
        self.record = record

    def handle(self) -> Handle | None:
        """Return the last start, alive or not."""
        data = read_json(self.record)
        return Handle(**data["handle"]) if data and data.get("handle") else None

    def facts(self) -> dict[str, str]:
        """Return what `start` was told to remember."""
        data = read_json(self.record) or {}
        return {str(key): str(value) for key, value in data.get("facts", {}).items()}

    def start(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        facts: Mapping[str, str] | None = None,
        drop_env: Sequence[str] = (),
    ) -> Handle:
        """Start it in a session of its own. Raises `EngineError` where it cannot be started; nothing is left then."""
        mark = uuid.uuid4().hex
        environment = {key: value for key, value in os.environ.items() if key not in drop_env} | dict(env or {})
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            _put_aside(log)
            # The mark first: whoever dies between here and the last line leaves a program that can be found and ended.
            self._write(Handle(pid=NO_PID, created=0.0, mark=mark), facts or {})
            with log.open("ab") as output:
                process = subprocess.Popen(
                    list(argv),
                    env={**environment, MARK: mark},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise EngineError(f"{self.name} cannot be started: {argv[0]}: {error.strerror}") from error
        # Before it may be reaped: one that has ended already is asked for its start time as a zombie.
        handle = Handle(pid=process.pid, created=psutil.Process(process.pid).create_time(), mark=mark)
        _reap_later(process)
        try:
            self._write(handle, facts or {})
        except OSError as error:
            end(handle, name=self.name, term_s=0.0)
            raise EngineError(f"{self.name} cannot be started: {self.record}: {error.strerror}") from error
        return handle

    def forget(self) -> None:
        """Let go of an ended start; what it was told to remember stays for the next one (ports, to use them again)."""
        self._write(None, self.facts())

    def _write(self, handle: Handle | None, facts: Mapping[str, str]) -> None:
        data = {"handle": asdict(handle) if handle else None, "facts": dict(facts)}
        write_json(self.record, data, private=True)

    def stop(self, *, term_s: float = 10.0) -> int:
        """End every process of the last start and return how many there were; verified, idempotent."""
        handle = self.handle()
        return end(handle, name=self.name, term_s=term_s) if handle else 0


def end(handle: Handle, *, name: str, term_s: float = 10.0) -> int:
    """SIGTERM to the first process, SIGKILL to all that is left. Raises `EngineError` where something survives that."""
    before = handle.processes()
    if handle.is_alive():
        with suppress(psutil.NoSuchProcess):
            psutil.Process(handle.pid).terminate()
        deadline = time.monotonic() + term_s
        while handle.is_alive() and time.monotonic() < deadline:
            time.sleep(0.05)
    return max(len(before), sweep({MARK: handle.mark}, also=before, name=name))


def sweep(marks: Mapping[str, str], *, name: str, also: Sequence[psutil.Process] = ()) -> int:
    """Kill all processes that carry the marks (and `also`) until none is left; return how many were killed."""
    killed: set[int] = set()
    for _ in range(20):
        left = {process.pid: process for process in (*marked(marks), *also) if _is_alive(process)}
        if not left:
            return len(killed)
        for process in left.values():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
                killed.add(process.pid)
        psutil.wait_procs(list(left.values()), timeout=0.5)
    raise EngineError(f"processes of {name} survive SIGKILL: {sorted(left)}")


def marked(marks: Mapping[str, str]) -> list[psutil.Process]:
    """Return the living processes whose environment holds every mark."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if all(environment.get(key) == value for key, value in marks.items()) and _is_alive(process):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or another user's: not ours
    return found


def _mark(process: psutil.Process) -> str:
    """The mark of the program that the process belongs to; empty where it has none or hides it."""
    try:
        return str(process.environ().get(MARK, ""))
    except (psutil.AccessDenied, OSError):
        return ""


def free_port(*, preferred: int = 0, taken: Collection[int] = ()) -> int:
    """Return a free TCP port of this machine, `preferred` if it is free.

    Others are drawn from below the range that systems give to outgoing connections, so that none takes it meanwhile.
    """
    draws = [random.randrange(20000, 32000) for _ in range(200)]
    for candidate in [preferred, *draws] if preferred else draws:
        if candidate not in taken and is_free(candidate):
            return candidate
    raise EngineError("no TCP port is free between 20000 and 32000")


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now, on any address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


_children: list[subprocess.Popen[bytes]] = []


def _reap_later(process: "subprocess.Popen[bytes]") -> None:
    """Keep the child so that its end is collected: a zombie's pid looks alive to others."""
    _children.append(process)
    _children[:] = [child for child in _children if child.poll() is None]


def _put_aside(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".old" + log.suffix))
