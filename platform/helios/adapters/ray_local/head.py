"""The cell's Ray: started as a program of its own, found again, watched, restarted, ended exactly.

A cell of several nodes has further raylets beside the head (`raylets`); they are started, tended and ended with it.
"""

import hashlib
import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from helios.adapters.programs import Handle, Program
from helios.adapters.ray_local import machine
from helios.adapters.ray_local.dashboard import Dashboard
from helios.adapters.ray_local.machine import Share
from helios.adapters.ray_local.raylets import (
    FOREIGN,
    NODE_PORTS,
    REJOIN_S,
    STOP_S,
    Cluster,
    Raylets,
    Sight,
    draw_ports,
    label_options,
    port_options,
)
from helios.errors import EngineError, UnavailableError

HUNG_S = 300.0
"""A Ray whose processes live but which has not answered for this long is ended and started again: long, because a
machine that is only busy loses nothing by waiting, and all that runs by a restart."""
LONGEST_DELAY_S = 60.0
"""Between restarts of a Ray that does not come up."""
READY_S = 120.0
_PORTS = ("port", "dashboard-port", *NODE_PORTS, "ray-client-server-port")
_NODE_HEALTH = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "5",
}
"""A dead raylet is known in 5 s and one that hangs in 25 s. The head of a single node keeps Ray's own, longer ones:
there a raylet that is only slow would be mistaken for dead, and nothing be won."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a running Ray is.

    Attributes:
        instance: names this start of Ray; another one means that everything that ran in it is over.
        serve_port: where its Serve proxy listens once a service was deployed.
    """

    instance: str
    dashboard: str
    gcs_port: int
    serve_port: int
    token: str


class RayHead:
    """Ray on this machine for one cell. Its handle and ports are in `<folder>/ray.json`, its token in `ray.token`.

    Args:
        cpus: cores that all nodes have together; those of the machine by default.
        cell: prefix of the nodes' names; the folder's name by default.
        nodes: how many nodes Ray is to have at its next start; as many as at the last one by default.
        rejoin_s: see `REJOIN_S`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cpus: int | None = None,
        env: Mapping[str, str] | None = None,
        cell: str = "",
        nodes: int | None = None,
        rejoin_s: float = REJOIN_S,
    ) -> None:
        self.folder = folder
        self.cpus = cpus or os.cpu_count() or 1
        self.cell = cell or folder.name
        self.wanted = nodes
        self._env = dict(env or {})
        self._program = Program("Ray", folder / "ray.json")
        self._raylets = Raylets(folder, self.temp, rejoin_s=rejoin_s)
        self._lock = threading.RLock()
        self._silent_since: float | None = None
        self._not_before = 0.0
        self._delay = 1.0

    @property
    def temp(self) -> Path:
        """Ray's own folder: short, because paths of Unix sockets end at 107 bytes."""
        key = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:10]
        return Path(tempfile.gettempdir()) / f"helios-{os.getuid()}-{key}"

    @property
    def log(self) -> Path:
        return self.folder / "ray.log"

    @property
    def nodes(self) -> int:
        """How many nodes Ray was started for."""
        return int(self._program.facts().get("nodes", 1))

    @property
    def names(self) -> list[str]:
        return [f"{self.cell}-{index}" for index in range(self.nodes)]

    @property
    def shares(self) -> list[Share]:
        return machine.shares(self.nodes, cpus=self.cpus)

    def handle(self) -> Handle | None:
        return self._program.handle()

    def address(self) -> Address | None:
        """Return where Ray is, or None where it was never started or has been stopped."""
        handle, facts = self._program.handle(), self._program.facts()
        if handle is None or "dashboard" not in facts:
            return None
        return Address(
            instance=handle.mark,
            dashboard=facts["dashboard"],
            gcs_port=int(facts["port"]),
            serve_port=int(facts["serve"]),
            token=self._token(),
        )

    def connect(self) -> Dashboard:
        """Return a client of the running Ray. Raises `UnavailableError` where there is none."""
        address = self.address()
        if address is None or self.is_dead():
            raise UnavailableError("Ray of this cell is not running")
        return Dashboard(address.dashboard, address.token)

    def ensure(self) -> bool:
        """Start Ray where it is not running; return whether it had to be started. Does not wait for it to answer."""
        with self._lock:
            handle = self._program.handle()
            if handle is not None and handle.is_alive():
                return False
            if handle is not None and not self.is_dead():
                return False  # its first process is gone, its control store still answers: one signal is not enough
            if handle is not None:
                self._program.stop()
            self._start()
            return True

    def wait_ready(self, *, timeout_s: float = READY_S) -> None:
        """Wait until Ray takes jobs. Raises `EngineError` with the end of its log where it ended instead."""
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            handle = self._program.handle()
            if handle is None or not handle.is_alive():
                raise EngineError(f"Ray ended while starting: {self._last_words()}", hint=f"its log is {self.log}")
            if time.monotonic() > deadline:
                raise EngineError(f"Ray did not answer within {timeout_s:g} s", hint=f"its log is {self.log}")
            time.sleep(0.2)

    def is_ready(self) -> bool:
        try:
            self.connect().ping()
        except UnavailableError:
            return False
        return True

    def is_dead(self) -> bool:
        """Whether both signals say so: its first process is gone, and no control store of its own answers."""
        handle, facts = self._program.handle(), self._program.facts()
        if handle is None:
            return True
        if handle.is_alive():
            return False
        # After a reboot some other program may have the port: only a process that carries our mark counts.
        return not _accepts(int(facts["port"])) or not handle.processes()

    def tend(self) -> bool:
        """Return whether Ray answers; restart it where it died or hangs. Called every few seconds, quick otherwise."""
        with self._lock:
            if self._program.handle() is None:
                return False
            now = time.monotonic()
            if self.is_dead():
                if now >= self._not_before:
                    self._restart(now)
                return False
            if self.is_ready():
                self._silent_since, self._delay = None, 1.0
                return True
            self._silent_since = self._silent_since or now
            if now - self._silent_since >= HUNG_S:
                self._restart(now)
            return False

    def sight(self) -> list[Sight]:
        """How each node looks, the head's first; looks after the others on the way.

        Raises:
            UnavailableError: Ray does not answer.
        """
        with self._lock:
            address = self.address()
            if address is None:
                raise UnavailableError("Ray of this cell is not running")
            if self.nodes == 1:
                return [Sight(healthy=True)]
            cluster = Cluster(
                instance=address.instance,
                address=f"127.0.0.1:{address.gcs_port}",
                names=self.names,
                shares=self.shares,
                env=self._environment(self.nodes),
                taken=frozenset(
                    int(port) for name, port in self._program.facts().items() if name in (*_PORTS, "serve")
                ),
            )
            return [Sight(healthy=True), *self._raylets.tend(cluster, self.connect().nodes())]

    def _ports(self) -> frozenset[int]:
        facts = self._program.facts()
        return frozenset(int(facts[name]) for name in (*_PORTS, "serve"))

    def reshape(self) -> bool:
        """Start Ray anew where it was started for another number of nodes than is wanted; ends all that runs in it."""
        with self._lock:
            if self.wanted in {None, self.nodes} or self._program.handle() is None:
                return False
            self._program.stop(term_s=STOP_S)
            self._start()
            return True

    def stop(self) -> int:
        """End every process of this Ray; returns how many there were. Raises `EngineError` where one survives."""
        with self._lock:
            count = self._raylets.stop() + self._program.stop(term_s=STOP_S)
            self._program.forget()
            shutil.rmtree(self.temp, ignore_errors=True)
            return count

    def _restart(self, now: float) -> None:
        self._silent_since = None
        self._not_before = now + self._delay
        self._delay = min(self._delay * 2, LONGEST_DELAY_S)
        self._program.stop(term_s=STOP_S)
        self._start()

    def _start(self) -> None:
        token = self._token()
        assert token
        self._raylets.stop()
        self._prepare_temp()
        before = self._program.facts()
        nodes = self.wanted or self.nodes
        ports = draw_ports((*_PORTS, "serve"), before)
        facts = {name: str(port) for name, port in ports.items()}
        facts |= {"dashboard": f"http://127.0.0.1:{ports['dashboard-port']}", "nodes": str(nodes)}
        command = self._command({name: ports[name] for name in _PORTS}, nodes)
        environment = {**self._environment(nodes), **machine.shares(nodes, cpus=self.cpus)[0].environment()}
        self._program.start(command, log=self.log, env=environment, facts=facts, drop_env=FOREIGN)

    def _command(self, ports: Mapping[str, int], nodes: int) -> Sequence[str]:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *port_options(ports)]
        command += machine.shares(nodes, cpus=self.cpus)[0].ray_options()
        command += ["--dashboard-host", "127.0.0.1", "--include-dashboard", "true", "--temp-dir", str(self.temp / "r")]
        command += ["--min-worker-port", "0", "--max-worker-port", "0", "--disable-usage-stats"]
        command += ["--no-monitor"]  # that is Ray's autoscaler
        return command + label_options(f"{self.cell}-0", "head")

    def _environment(self, nodes: int) -> dict[str, str]:
        return {
            **self._env,
            **(_NODE_HEALTH if nodes > 1 else {}),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str((self.folder / "ray.token").resolve()),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ROTATION_MAX_BYTES": str(16 * 1024 * 1024),
            "RAY_ROTATION_BACKUP_COUNT": "2",
            "RAY_JOB_STOP_WAIT_TIME_S": "15",
            "RAY_DISABLE_IMPORT_WARNING": "1",
            "SPT_NOENV": "1",  # Ray's renamed processes keep their environment, and with it the mark they are found by
        }

    def _prepare_temp(self) -> None:
        self.temp.mkdir(mode=0o700, exist_ok=True)
        if self.temp.stat().st_uid != os.getuid():
            raise EngineError(f"{self.temp} belongs to another user")
        shutil.rmtree(self.temp / "r", ignore_errors=True)

    def _token(self) -> str:
        path = self.folder / "ray.token"
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            token = secrets.token_hex(32)
            with os.fdopen(descriptor, "w") as file:
                file.write(token)
            return token

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except FileNotFoundError:
            return "it wrote no log"
        return lines[-1][:500] if lines else "its log is empty"


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False
