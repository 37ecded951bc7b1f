"""Runs one job's entrypoint where the job lives, and persists how it ended whatever happens to the engine above.

    python -m helios.agent.launch -- '<entrypoint>'

Standard library only: it starts in a few hundredths of a second and cannot fail for want of a package. What it reads
and writes in `$HELIOS_JOB_DIR` is described in docs/reference/runtime.md.
"""

import json
import os
import re
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from helios.agent.redact import Redactor, maskable
from helios.agent.secrets import SecretUnreadableError, resolve
from helios.durable import read_json, write_json

OK, NO_SPACE, INVALID, SPENT, PREEMPTED = 0, 28, 64, 70, 75
REASONS = {
    OK: "Completed",
    NO_SPACE: "NoSpace",
    INVALID: "InvalidConfig",
    SPENT: "RetriesSpent",
    PREEMPTED: "Preempted",
}
DRAIN_S = 2.0
"""How long output of orphans is still read after the job's own process has ended."""
TERM_S = 5.0
"""From SIGTERM to SIGKILL of the job's process group; Ray gives the wrapper 15 s (see `ray_local.head`)."""

_TAIL = 16 * 1024
_MESSAGE = 1000
_DECORATION = re.compile(r"\x1b\[[0-9;]*m|^\([^()]*pid=[^()]*\) ?", re.MULTILINE)
"""Colours, and the `(Worker pid=7)` that Ray puts before lines of other processes."""
_ERROR_LINE = re.compile(r"^(?:[\w.]*(?:Error|Exception|Interrupt)|error|fatal)\b.*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Exit:
    """How the entrypoint ended; `code` follows the shell: 128 + signal for a process that a signal ended."""

    code: int
    reason: str
    message: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobFolder:
    """`$HELIOS_JOB_DIR` of one start."""

    path: Path
    epoch: int

    def is_current(self) -> bool:
        """Whether this start is the one that was last ordered, and not stopped meanwhile; a late one must not run."""
        ordered = read_json(self.path / "launch.json")
        if ordered is None:
            return True
        return int(ordered["epoch"]) == self.epoch and not ordered.get("stopped")

    def open_log(self) -> BinaryIO:
        """Open the log that all starts share, and note where this one's part begins."""
        log = (self.path / "log.txt").open("ab", buffering=0)
        starts = read_json(self.path / "log.json") or {}
        starts.setdefault(str(self.epoch), log.tell())
        write_json(self.path / "log.json", starts)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        log.write(f"----- {stamp} {os.environ.get('HELIOS_JOB', 'job')} start {self.epoch} -----\n".encode())
        return log

    def write_pid(self, child: int) -> None:
        facts = {"epoch": self.epoch, "wrapper": os.getpid(), "child": child, "started_at": time.time()}
        write_json(self.path / "pid.json", facts)

    def write_exit(self, end: Exit) -> None:
        write_json(
            self.path / "exit.json",
            {
                "code": end.code,
                "reason": end.reason,
                "message": end.message,
                "outputs": dict(end.outputs),
                "finished_at": time.time(),
                "epoch": self.epoch,
            },
        )


class Output:
    """Where the job's output goes: the durable log, and the engine's own log as long as that can be written."""

    def __init__(self, log: BinaryIO, redactor: Redactor) -> None:
        self._log = log
        self._redactor = redactor
        self._engine_listens = True
        self.tail = b""
        self.full = False

    def feed(self, data: bytes) -> None:
        self._write(self._redactor.feed(data))

    def masked(self, text: str) -> str:
        """What the job wrote elsewhere, without its secrets."""
        return self._redactor.masked(text.encode(errors="backslashreplace")).decode()

    def close(self) -> None:
        self._write(self._redactor.flush())
        self._log.close()

    def _write(self, data: bytes) -> None:
        if not data:
            return
        self.tail = (self.tail + data)[-_TAIL:]
        try:
            self._log.write(data)
        except OSError as error:
            if error.errno != NO_SPACE:
                raise
            self.full = True  # keep reading: a job that blocks on its own output would never end
        if self._engine_listens:
            try:
                os.write(1, data)
            except OSError:
                self._engine_listens = False  # Ray died and took the other end; the durable log goes on


def main(arguments: list[str]) -> int:
    """Run the entrypoint and return its exit code."""
    folder = JobFolder(Path(os.environ["HELIOS_JOB_DIR"]), int(os.environ["HELIOS_EPOCH"]))
    if not folder.is_current():
        return PREEMPTED
    end = _run(shlex.join(arguments) if len(arguments) > 1 else arguments[0], folder)
    with suppress(OSError):  # a full disk: the code itself tells the driver
        folder.write_exit(end)
    return end.code


def _run(entrypoint: str, folder: JobFolder) -> Exit:
    try:
        argv = command_of(entrypoint)
        secrets = resolve(json.loads(os.environ.get("HELIOS_SECRETS", "{}")))
        log = folder.open_log()
    except SecretUnreadableError as error:
        return Exit(INVALID, "SecretUnreadable", str(error))
    except ValueError as error:
        return Exit(INVALID, "InvalidConfig", f"entrypoint {entrypoint!r}: {error}")
    except OSError as error:
        return Exit(error.errno or 1, REASONS.get(error.errno or 1, "Error"), f"{folder.path}: {error.strerror}")
    output = Output(log, Redactor(maskable(secrets.values())))
    try:
        child = _spawn(argv, {**os.environ, **secrets})
    except OSError as error:
        message = f"{argv[0]}: {error.strerror}"
        output.feed(f"{message}\n".encode())
        output.close()
        return Exit(INVALID, "InvalidConfig", f"the entrypoint cannot be started: {message}")
    folder.write_pid(child.pid)
    asked_to_stop = _Termination(child)
    asked_to_stop.install()
    _pump(child, output, asked_to_stop)
    _kill_group(child.pid, signal.SIGKILL)  # what the entrypoint left running in its group
    output.close()
    return ending(child.wait(), folder, output, stopped=asked_to_stop.at is not None)


def command_of(entrypoint: str) -> list[str]:
    """Split a command line; a leading `python` means the interpreter that HELIOS runs on. Raises `ValueError`."""
    argv = shlex.split(entrypoint)
    if not argv:
        raise ValueError("is empty")
    if argv[0] in {"python", "python3"}:
        argv[0] = sys.executable
    return argv


def ending(returncode: int, folder: JobFolder, output: Output, *, stopped: bool) -> Exit:
    """Say how the job ended, from its exit status, its own result.json and the end of its log."""
    result = read_json(folder.path / "result.json") or {}
    said = result.get("outputs")
    outputs = {str(key): output.masked(str(value)) for key, value in (said if isinstance(said, dict) else {}).items()}
    reason, message = str(result.get("reason") or ""), output.masked(str(result.get("message") or ""))[:_MESSAGE]
    if returncode == OK:
        return Exit(OK, reason or REASONS[OK], message, outputs)
    error = last_error(output.tail)
    if returncode == 1 and (output.full or "[Errno 28]" in error):
        return Exit(NO_SPACE, REASONS[NO_SPACE], error or "no space left on the device", outputs)
    if returncode < 0:
        name = signal.Signals(-returncode).name
        reason = reason or ("Stopped" if stopped else "Killed")
        return Exit(128 - returncode, reason, message or f"the job's process was ended by {name}", outputs)
    message = message or error or f"it ended with exit code {returncode} and printed nothing"
    return Exit(returncode, reason or REASONS.get(returncode, "Error"), message, outputs)


def last_error(tail: bytes) -> str:
    """Return the last line that names an error, else the last line with anything in it."""
    text = _DECORATION.sub("", _DECORATION.sub("", tail.decode(errors="replace")))  # one may hide behind the other
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if _ERROR_LINE.match(line)]
    return (named or lines or [""])[-1][:_MESSAGE]


def _spawn(argv: list[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    cwd = os.environ.get("HELIOS_WORKDIR") or os.environ["HELIOS_JOB_DIR"]
    return subprocess.Popen(
        argv,
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  # no thread runs here yet
    )


def _die_with_parent() -> None:
    """Ask Linux to kill the job when its wrapper is killed: Ray's death must not leave it running unseen."""
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class _Termination:
    """Passes SIGTERM on to the job's process group, and SIGKILL when it does not leave."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self.at: float | None = None

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.at is None:
            self.at = time.monotonic()
            _kill_group(self._child.pid, signal.SIGTERM)

    def enforce(self) -> None:
        if self.at is not None and time.monotonic() - self.at > TERM_S:
            _kill_group(self._child.pid, signal.SIGKILL)


def _pump(child: subprocess.Popen[bytes], output: Output, termination: _Termination) -> None:
    """Copy output until the job has ended and its pipe is closed or has been quiet for `DRAIN_S`."""
    assert child.stdout is not None
    source = child.stdout.fileno()
    ended_at: float | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        while True:
            if selector.select(timeout=0.2):
                data = os.read(source, 65536)
                if not data:
                    break
                output.feed(data)
            termination.enforce()
            if ended_at is None and child.poll() is not None:
                ended_at = time.monotonic()
            if ended_at is not None and time.monotonic() - ended_at > DRAIN_S:
                return
    while child.poll() is None:  # it closed its output and lives on
        termination.enforce()
        time.sleep(0.1)


def _kill_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # gone already, or a zombie on macOS
        os.killpg(group, number)


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(given[1:] if given[:1] == ["--"] else given))
