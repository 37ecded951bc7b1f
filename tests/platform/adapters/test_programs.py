"""Programs are found and ended by their handles, whatever became of their first process."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from helios.adapters.programs import MARK, Handle, Program, free_port, is_free, marked
from helios.durable import write_json
from helios.errors import EngineError

PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("up", flush=True)
time.sleep(600)
"""

NESTED = """
import sys, time
from pathlib import Path
from helios.adapters.programs import Program
Program("second", Path({record!r})).start([sys.executable, "-c", {parent!r}], log=Path({log!r}))
time.sleep(600)
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program("demo", tmp_path / "demo.json")
    yield program
    program.stop(term_s=0.1)


def start(program: Program, tmp_path: Path) -> Handle:
    """Start a program with a child in a session of its own, and wait for both."""
    handle = program.start([sys.executable, "-c", PARENT], log=tmp_path / "log", facts={"port": "7"})
    deadline = time.monotonic() + 20
    while len(handle.processes()) < 2 or b"up" not in (tmp_path / "log").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return handle


def test_found_again_and_ended_exactly(program: Program, tmp_path: Path) -> None:
    """Another process finds the program by its file; stop ends all of it, once."""
    handle = start(program, tmp_path)
    again = Program("demo", tmp_path / "demo.json")
    assert again.handle() == handle
    assert again.facts() == {"port": "7"}
    assert again.stop(term_s=2.0) == 2
    assert marked({MARK: handle.mark}) == []
    assert not handle.is_alive()
    assert again.stop() == 0
    assert (tmp_path / "demo.json").stat().st_mode & 0o777 == 0o600


def test_orphans_are_found_by_their_mark(program: Program, tmp_path: Path) -> None:
    """kill -9 of the first process leaves children that init adopts; they still belong to the program."""
    handle = start(program, tmp_path)
    os.kill(handle.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(handle.pid)], timeout=5)
    assert not handle.is_alive()
    assert len(handle.processes()) == 1
    assert program.stop() == 1
    assert handle.processes() == []


def test_program_started_by_a_program_is_its_own(program: Program, tmp_path: Path) -> None:
    """Ending the first leaves the second and its children running: it is ended by its own handle, in its own time."""
    second = Program("second", tmp_path / "second.json")
    nested = NESTED.format(record=str(tmp_path / "second.json"), log=str(tmp_path / "second.log"), parent=PARENT)
    handle = program.start([sys.executable, "-c", nested], log=tmp_path / "log")
    deadline = time.monotonic() + 20
    while not (tmp_path / "second.log").exists() or b"up" not in (tmp_path / "second.log").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    try:
        assert program.stop(term_s=0.1) == 1
        assert not handle.is_alive()
        nested_handle = second.handle()
        assert nested_handle is not None
        assert nested_handle.is_alive()
        assert second.stop(term_s=0.1) == 2
    finally:
        second.stop(term_s=0.1)


@pytest.mark.parametrize("written", [0, 1])
def test_start_that_cannot_be_noted_leaves_no_process(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """With no space for the handle, before the start or after it, the error says so and nothing runs unseen."""
    marks: list[str] = []

    def full(path: Path, data: dict[str, Any], *, private: bool) -> None:
        marks.append(data["handle"]["mark"])
        if len(marks) > written:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_json(path, data, private=private)

    monkeypatch.setattr("helios.adapters.programs.write_json", full)
    with pytest.raises(EngineError, match=r"demo cannot be started: .*No space left"):
        program.start([sys.executable, "-c", PARENT], log=tmp_path / "log")
    assert marked({MARK: marks[0]}) == []
    assert not any(handle.is_alive() for handle in [program.handle()] if handle)


def test_starter_that_dies_leaves_a_program_that_is_found(program: Program, tmp_path: Path) -> None:
    """The mark is on disk before the program runs: killed in between, its starter's successor can still end it."""
    write_once = """
import os, sys
from pathlib import Path
from helios.adapters import programs
first = programs.write_json
def write_json(*arguments, **options):
    first(*arguments, **options)
    programs.write_json = lambda *_, **__: os._exit(9)
programs.write_json = write_json
programs.Program("demo", Path(sys.argv[1])).start([sys.executable, "-c", sys.argv[3]], log=Path(sys.argv[2]))
"""
    command = [sys.executable, "-c", write_once, str(program.record), str(tmp_path / "log"), PARENT]
    assert subprocess.run(command, check=False).returncode == 9
    handle = program.handle()
    assert handle is not None
    assert not handle.is_alive()
    assert handle.processes()
    assert program.stop() >= 1
    assert handle.processes() == []


def test_recycled_pid_is_not_taken_for_the_program() -> None:
    """A process id that something else has now is not ours."""
    mine = psutil.Process()
    assert Handle(mine.pid, mine.create_time(), "m").is_alive()
    assert not Handle(mine.pid, mine.create_time() - 60, "m").is_alive()


def test_forgotten_start_keeps_its_facts(program: Program, tmp_path: Path) -> None:
    """After an end, ports are remembered for the next start."""
    start(program, tmp_path)
    program.stop(term_s=1.0)
    program.forget()
    assert program.handle() is None
    assert program.facts() == {"port": "7"}


def test_missing_program_is_an_engine_error(program: Program, tmp_path: Path) -> None:
    """A program that is not there is said to be missing by its name."""
    with pytest.raises(EngineError, match="demo cannot be started: /no/such/program"):
        program.start(["/no/such/program"], log=tmp_path / "log")


def test_ports_are_free_and_used_again() -> None:
    """The preferred port is taken where it is free, else another one."""
    port = free_port()
    assert free_port(preferred=port) == port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert not is_free(port)
        assert free_port(preferred=port) != port
