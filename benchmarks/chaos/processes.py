"""Programs of the fleet: started, killed, paused, and started again by a supervisor; each ended by its handle."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

RESTART_S = (1.0, 3.0)
END_S = 15.0
UNAVAILABLE = 3
"""Exit code of a program that found something missing which it cannot start without; its supervisor tries again."""


class Program:
    """One program, and whoever takes its place after it was killed.

    Attributes:
        crashes: how often it ended though nobody harmed it, with the code and the end of its log.
    """

    def __init__(self, name: str, command: Sequence[str], *, log: Path) -> None:
        self.name = name
        self.crashes: list[str] = []
        self._command = list(command)
        self._log = log
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._replaced: list[subprocess.Popen[bytes]] = []
        self._restart_at: float | None = None
        self._paused = False
        self._started = 0.0

    @property
    def age(self) -> float:
        """Seconds since its present process was started."""
        return time.monotonic() - self._started

    @property
    def is_up(self) -> bool:
        with self._lock:
            return self._process is not None and not self._paused

    def start(self) -> None:
        with self._lock, self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            self._paused, self._restart_at, self._started = False, None, time.monotonic()

    def kill(self, *, restart_after: float) -> None:
        """SIGKILL, and a new one after some seconds."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                self._process = None
                self._restart_at = time.monotonic() + restart_after

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        self._signal(signal.SIGCONT)
        self._paused = False

    def replace(self) -> None:
        """Pause it, and start its successor at once; `wake_replaced` wakes the old one up."""
        with self._lock:
            assert self._process is not None
            self._process.send_signal(signal.SIGSTOP)
            self._replaced.append(self._process)
            self.start()

    def wake_replaced(self) -> None:
        with self._lock:
            for process in self._replaced:
                process.send_signal(signal.SIGCONT)

    def zombies(self) -> int:
        """Predecessors that were woken up and have not stood down."""
        with self._lock:
            self._replaced = [process for process in self._replaced if process.poll() is None]
            return len(self._replaced)

    def look(self) -> None:
        """Start it again where its time has come; note it where it ended by itself."""
        with self._lock:
            if self._process is not None and (code := self._process.poll()) is not None:
                if code != UNAVAILABLE:
                    self.crashes.append(f"{self.name} ended by itself with {code}: {self._last_line()}")
                self._process, self._restart_at = None, time.monotonic() + RESTART_S[0]
            if self._restart_at is not None and time.monotonic() >= self._restart_at:
                self.start()

    def end(self) -> None:
        """SIGTERM, and SIGKILL where that does not do; everything it was is gone afterwards."""
        with self._lock:
            self._restart_at = None
            processes = [*self._replaced, *([self._process] if self._process else [])]
            self._process = None
            for process in processes:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        deadline = time.monotonic() + END_S
        for process in processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if self._process is not None:
                self._process.send_signal(number)

    def _last_line(self) -> str:
        with self._log.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 4000))
            lines = log.read().decode(errors="replace").splitlines()
        return lines[-1] if lines else "(it said nothing)"


class Supervisor:
    """Looks after programs until it is told to end; then ends all of them."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self._programs = programs
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        for program in self._programs:
            program.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        enders = [threading.Thread(target=program.end) for program in self._programs]
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            for program in self._programs:
                program.look()
