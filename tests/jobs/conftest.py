"""One local Ray for every test that carries the `ray` mark: its own ports, folder and token, ended by its handle."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

START_TIMEOUT = 90.0
# Ray reads this once in a process, when it is first imported, which a test module may do before any Ray runs.
os.environ["RAY_AUTH_MODE"] = "token"


@dataclass(frozen=True)
class RayCluster:
    """A running Ray. `env` is what a child process needs to join it; this process has it too."""

    address: str
    env: dict[str, str]
    process: subprocess.Popen[bytes]
    folder: Path

    def processes(self, name: str) -> list[psutil.Process]:
        """This Ray's own processes with `name` in their command line."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in family if name in " ".join(process.cmdline())]

    def require_alive(self) -> None:
        code = self.process.poll()
        if code is not None:
            pytest.fail(f"the tests' Ray died (exit {code}):\n{_log_tail(self.folder)}", pytrace=False)


@pytest.fixture(autouse=True)
def _denormal_numbers_come_back() -> Iterator[None]:
    """Training turns them off for its whole process, which here is everybody's."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def _ray_session() -> Iterator[RayCluster]:
    # A unix socket's path holds 107 bytes and Ray's own part takes most of them, so the folder's name is short.
    folder = Path(tempfile.mkdtemp(prefix="hr", dir="/tmp"))
    port, agent, grpc, metrics, environment = _free_ports(5)
    env = {
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_AUTH_MODE": os.environ["RAY_AUTH_MODE"],
        "RAY_AUTH_TOKEN": secrets.token_hex(24),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--node-ip-address", "127.0.0.1", "--port", str(port), "--include-dashboard", "false"),
        *("--dashboard-agent-listen-port", str(agent), "--dashboard-agent-grpc-port", str(grpc)),
        *("--metrics-export-port", str(metrics), "--runtime-env-agent-port", str(environment)),
        *("--min-worker-port", "0", "--max-worker-port", "0", "--num-cpus", "4", "--num-gpus", "0"),
        *("--object-store-memory", str(256 * 2**20), "--temp-dir", str(folder), "--disable-usage-stats"),
    ]
    with (folder / "start.log").open("wb") as log:
        inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        process = subprocess.Popen(
            command, env=inherited | env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    cluster = RayCluster(env["RAY_ADDRESS"], env, process, folder)
    saved = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        _wait_until_up(cluster)
        yield cluster
    finally:
        _end(process)
        for name, value in saved.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def ray_cluster(_ray_session: RayCluster) -> Iterator[RayCluster]:
    """The session's Ray, alive before and after the test that asks for it."""
    _ray_session.require_alive()
    yield _ray_session
    _ray_session.require_alive()


def _wait_until_up(cluster: RayCluster) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while b"Ray runtime started" not in (cluster.folder / "start.log").read_bytes():
        cluster.require_alive()
        if time.monotonic() > deadline:
            pytest.fail(f"Ray was not up after {START_TIMEOUT:.0f} s:\n{_log_tail(cluster.folder)}", pytrace=False)
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the head and all that descends from it, and nothing else."""
    import ray

    if ray.is_initialized():
        ray.shutdown()
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    _, left = psutil.wait_procs(family, timeout=5)
    for survivor in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            survivor.kill()
    process.kill()
    process.wait(timeout=10)


def _free_ports(count: int) -> list[int]:
    """Different free ports; all are held until the last is known."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()


def _log_tail(folder: Path) -> str:
    return (folder / "start.log").read_text(errors="replace")[-2000:]
