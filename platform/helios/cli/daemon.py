"""The daemon behind `helios up`: store, control plane, agents and API in one process; MLflow and Ray beside it.

MLflow and Ray are programs of their own that outlive this process (docs/decisions/0001): it starts them where they are
not running, attaches where they are, and starts them again where they die. `helios down` ends them.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import uvicorn

from helios.adapters.mlflow.server import MlflowServer
from helios.adapters.mlflow.tracker import MlflowTracker
from helios.adapters.ray_local.driver import RayLocalDriver
from helios.adapters.ray_local.head import RayHead
from helios.agent.cell import CellAgent
from helios.api.app import create_app
from helios.cli.home import Home, Progress
from helios.control import ControlPlane
from helios.errors import HeliosError
from helios.store import Record, open_store

FIRST_CELL = "local"
"""The cell whose Ray is started along with HELIOS, because its YAML is the one that ships."""
WATCH_S = 5.0
_log = logging.getLogger(__name__)


class Startup:
    """Brings up the components in parallel and tells the folder how far it is."""

    def __init__(self, home: Home, names: Sequence[str]) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._progress = Progress(pid=os.getpid(), states=dict.fromkeys(names, "starting"))
        self._progress.write(home.components)

    def begin(self, name: str, bring_up: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=self._run, args=(name, bring_up), name=f"start-{name}", daemon=True)
        thread.start()
        return thread

    def done(self, name: str) -> None:
        self._set(name, "ready")

    def fail(self, error: Exception) -> None:
        hint = error.hint if isinstance(error, HeliosError) else ""
        code = error.code if isinstance(error, HeliosError) else type(error).__name__
        with self._lock:
            self._progress.error = {"code": code, "message": str(error), "hint": hint}
            self._progress.write(self._home.components)

    def _run(self, name: str, bring_up: Callable[[], object]) -> None:
        try:
            bring_up()
        except Exception as error:  # noqa: BLE001  # told to whoever waits in `helios up`, with its reason
            _log.exception("%s did not start", name)
            self._set(name, "failed")
            self.fail(error)
        else:
            self.done(name)

    def _set(self, name: str, state: str) -> None:
        _log.info("%s: %s", name, state)
        with self._lock:
            self._progress.states[name] = state
            self._progress.write(self._home.components)


@dataclass(slots=True)
class _Running:
    agent: CellAgent
    driver: RayLocalDriver
    stop: threading.Event = field(default_factory=threading.Event)


class Agents:
    """An agent for each cell of `provider: local` that the store has."""

    def __init__(self, home: Home, control: ControlPlane, tracking_uri: Callable[[], str]) -> None:
        self._home = home
        self._control = control
        self._tracking_uri = tracking_uri
        self._running: dict[str, _Running] = {}

    def logs(self, uid: str, epoch: int, offset: int) -> tuple[bytes, int]:
        """Log bytes of a launch, from the cell that has it."""
        for running in list(self._running.values()):
            data, after = running.driver.logs(uid, epoch, offset=offset)
            if data:
                return data, after
        return b"", offset

    def run(self, stop: threading.Event) -> None:
        revision = -1
        while not stop.is_set():
            try:
                revision = self._control.store.wait(revision, 1.0)
                self._match()
            except Exception:  # noqa: BLE001  # a full disk, say: the next look sees the same cells
                _log.exception("agents: a look at the cells failed")
                stop.wait(WATCH_S)
        for running in self._running.values():
            running.stop.set()

    def _match(self) -> None:
        """An agent for each local cell that has none, and none for those that are gone."""
        cells = {record.name: record for record in self._control.store.records("Cell")}
        local = {name: record for name, record in cells.items() if record.spec["provider"] == "local"}
        for name in local.keys() - self._running.keys():
            self._start(local[name])
        for name in self._running.keys() - local.keys():
            _log.info("cell %s was taken away", name)
            self._running.pop(name).stop.set()

    def _start(self, cell: Record) -> None:
        folder = self._home.cell(cell.name)
        pool = str(cell.spec["nodePools"][0]["name"])
        driver = RayLocalDriver(cell=cell.name, folder=folder, pool=pool, tracking_uri=self._tracking_uri())
        agent = CellAgent(self._control.gateway, driver, cell=cell.name, state_dir=folder)
        running = self._running[cell.name] = _Running(agent, driver)
        threading.Thread(target=self.serve, args=(running,), name=f"agent-{cell.name}", daemon=True).start()

    @staticmethod
    def serve(running: _Running) -> None:
        """Start the cell's Ray, however long that takes, and be its agent until told to stop."""
        while not running.stop.is_set():
            try:
                running.driver.head.ensure()
            except HeliosError as error:
                _log.warning("Ray of cell %s: %s", running.agent.cell, error.message)
                running.stop.wait(WATCH_S)
            else:
                running.agent.run(running.stop)


def serve(home: Home, *, port: int) -> None:
    """Run until SIGTERM. Raises whatever keeps it from starting."""
    stop = threading.Event()
    startup = Startup(home, ("API", "MLflow", "Ray"))
    mlflow = MlflowServer(home.mlflow)
    head = RayHead(home.cell(FIRST_CELL))
    try:
        mlflow.ensure()
        startup.begin("MLflow", mlflow.wait_ready)
        head.ensure()
        startup.begin("Ray", head.wait_ready)
        store = open_store(home.database)
        control = ControlPlane(store, tracker=MlflowTracker(lambda: mlflow.url))
        agents = Agents(home, control, lambda: mlflow.url)
        address = head.address()
        links = {"mlflow": mlflow.url, "ray": address.dashboard if address else "", "home": str(home.root)}
        app = create_app(control, token=home.token(), logs=agents.logs, links=links)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                host="127.0.0.1",
                port=port,
                log_level="warning",
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=3,  # requests that wait for news would keep it for half a minute
            )
        )
    except Exception as error:
        startup.fail(error)
        raise
    threads = [
        threading.Thread(target=control.run, args=(stop,), name="control"),
        threading.Thread(target=agents.run, args=(stop,), name="agents"),
        threading.Thread(target=_keep, args=(mlflow, stop), name="mlflow-watch"),
    ]
    for thread in threads:
        thread.start()
    _stop_on_signal(stop, server)
    try:
        threading.Thread(target=_announce, args=(server, startup, stop), name="announce", daemon=True).start()
        server.run()
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=10.0)
        store.close()


def _announce(server: uvicorn.Server, startup: Startup, stop: threading.Event) -> None:
    while not server.started and not stop.wait(0.05):
        pass
    startup.done("API")


def _keep(mlflow: MlflowServer, stop: threading.Event) -> None:
    """Start MLflow again where it ended."""
    while not stop.wait(WATCH_S):
        try:
            if mlflow.ensure():
                _log.warning("MLflow had ended and was started again")
        except (HeliosError, OSError) as error:
            _log.warning("MLflow: %s", error)


def _stop_on_signal(stop: threading.Event, server: uvicorn.Server) -> None:
    """Uvicorn installs its own handlers while it runs; before that a signal must not be lost."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="helios-daemon")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(threadName)s %(name)s: %(message)s"
    )
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    home = Home(options.home)
    with home.locked("daemon", wait=False):
        serve(home, port=options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
