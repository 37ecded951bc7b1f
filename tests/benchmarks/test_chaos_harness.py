"""What the chaos test harms a fleet with does what it says, and ends what it began."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from benchmarks.chaos.fleet import cells, jobs
from benchmarks.chaos.processes import Program, Supervisor
from benchmarks.chaos.proxy import Proxies

from helios.spec import from_json

DEADLINE_S = 20.0


@pytest.fixture
def echo() -> Iterator[int]:
    """Port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        yield server.getsockname()[1]


def _serve(server: socket.socket) -> None:
    with suppress(OSError):
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        while data := connection.recv(1024):
            connection.sendall(data)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_way_can_be_cut_and_mended(echo: int) -> None:
    """Cut, a proxy drops what is open and refuses what comes; mended, it is as before."""
    with Proxies() as proxies:
        way = proxies.open(echo)
        with socket.create_connection(("127.0.0.1", way.port), timeout=DEADLINE_S) as connection:
            connection.sendall(b"x" * 100_000)
            assert connection.makefile("rb").read(100_000) == b"x" * 100_000
            way.cut()
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", way.port), timeout=DEADLINE_S)
        way.mend()
        with socket.create_connection(("127.0.0.1", way.port), timeout=DEADLINE_S) as connection:
            connection.sendall(b"again")
            assert connection.makefile("rb").read(5) == b"again"
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""


def writes_its_pid(folder: Path, then: str) -> Program:
    code = f"import os, time; open('pids', 'a').write(f'{{os.getpid()}}\\n'); {then}"
    command = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder), sys.executable, "-c", code]
    return Program("p", command, log=folder / "p.log")


def pids(folder: Path) -> list[int]:
    path = folder / "pids"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_programs_are_killed_started_again_and_ended(tmp_path: Path) -> None:
    """A killed program comes back as another process, a replaced one leaves, and at the end none is left."""
    program = writes_its_pid(tmp_path, "time.sleep(600)")
    with Supervisor([program]):
        until(lambda: len(pids(tmp_path)) == 1)
        program.kill(restart_after=0.0)
        until(lambda: len(pids(tmp_path)) == 2)
        assert not is_alive(pids(tmp_path)[0])
        program.replace()
        until(lambda: len(pids(tmp_path)) == 3)
        assert program.zombies() == 1
        program.wake_replaced()
        program.pause()
        assert not program.is_up
    assert not [pid for pid in pids(tmp_path) if is_alive(pid)]
    assert program.crashes == []


def test_a_program_that_ends_by_itself_is_told_of(tmp_path: Path) -> None:
    """Nobody harmed it: its code and its last words are kept, and it is started again."""
    program = writes_its_pid(tmp_path, "raise SystemExit('out of ideas')")
    with Supervisor([program]):
        until(lambda: len(program.crashes) >= 2)
    assert program.crashes[0] == "p ended by itself with 1: out of ideas"


def test_the_fleet_is_what_it_is_said_to_be() -> None:
    """15 unequal cells with 5,000 GPUs; 2,000 jobs that are valid, fit, and are the same for the same seed."""
    fleet = cells(15, seed=1)
    pools = [pool for cell in fleet for pool in cell.spec["nodePools"]]
    assert sum(pool["nodes"] for pool in pools) * 8 == 5000
    assert all(from_json(cell.document).kind == "Cell" for cell in fleet)
    work = list(jobs(2000, seconds=600, fleet=fleet, seed=1))
    assert work == list(jobs(2000, seconds=600, fleet=fleet, seed=1))
    assert len({job.name for job in work}) == 2000
    assert all(from_json(job.document).kind == "Job" for job in work[:100])
    assert 20 <= sum(job.cancel_after is not None for job in work) <= 120
