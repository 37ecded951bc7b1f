"""Programs are found and ended by their handles, whatever became of their first process."""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from helios.adapters.programs import MARK, Handle, Program, free_port, is_free, marked
from helios.errors import EngineError

PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("up", flush=True)
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
