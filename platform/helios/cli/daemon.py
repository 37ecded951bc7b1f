"""The daemon behind `helios up`: store, control plane, agents and API in one process; MLflow and Ray beside it.

MLflow and Ray are programs of their own that outlive this process (docs/decisions/0001): it starts them where they are
not running, attaches where they are, and starts them again where they die. `helios down` ends them.
"""

import argparse
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from helios.adapters.mlflow.server import MlflowServer
from helios.adapters.mlflow.tracker import MlflowTracker
from helios.adapters.ray_local.head import RayHead
from helios.api.app import create_app
from helios.cli.home import Home, Progress
from helios.cli.hosting import PROVIDERS, HostedCell
from helios.cli.replica import Listen, configure_logging, run_api
from helios.control import ControlPlane
from helios.errors import FencedError, HeliosError
from helios.spec import CellSpec
from helios.store import open_store

FIRST_CELL = "local"
"""The cell whose Ray is started along with HELIOS, because its YAML is the one that ships."""
NAME = "helios-up"
"""Of the one replica that an embedded control plane has."""
WATCH_S = 5.0
POLL_S = 1.0
"""How long an agent's call for news waits: it is in this process, and is to end with it."""
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


class Agents:
    """An agent in this process for each cell that this machine can run: of provider local, and simulated ones."""

    def __init__(self, home: Home, control: ControlPlane, tracking_uri: Callable[[], str]) -> None:
        self._home = home
        self._control = control
        self._tracking_uri = tracking_uri
        self._hosted: dict[str, HostedCell] = {}
        self._threads: list[threading.Thread] = []

    def logs(self, uid: str, epoch: int, offset: int) -> tuple[bytes, int]:
        """Log bytes of a launch, from the cell that has it."""
        for cell in list(self._hosted.values()):
            data, after = cell.logs(uid, epoch, offset)
            if data:
                return data, after
        return b"", offset

    def names(self) -> frozenset[str]:
        """The cells that have their agent here."""
        return frozenset(self._hosted)

    def run(self, stop: threading.Event) -> None:
        revision = -1
        while not stop.is_set():
            try:
                revision = self._control.store.wait(revision, 1.0)
                self._match()
            except Exception:  # noqa: BLE001  # a full disk, say: the next look sees the same cells
                _log.exception("agents: a look at the cells failed")
                stop.wait(WATCH_S)
        for cell in self._hosted.values():
            cell.end()
        for thread in self._threads:
            thread.join(timeout=2.0)  # one may sit in a call to an engine; it is a daemon, and holds nothing

    def _match(self) -> None:
        """An agent for each cell that has none, the new spec for those that changed, none for those that are gone."""
        cells = {record.name: record for record in self._control.store.records("Cell")}
        here = {name: record for name, record in cells.items() if record.spec["provider"] in PROVIDERS}
        for name, record in here.items():
            spec = CellSpec.model_validate(record.spec)
            if name in self._hosted:
                self._hosted[name].follow(spec)
            else:
                self._start(name, spec)
        for name in self._hosted.keys() - here.keys():
            _log.info("cell %s was taken away", name)
            self._hosted.pop(name).end()
        self._threads = [thread for thread in self._threads if thread.is_alive()]

    def _start(self, name: str, spec: CellSpec) -> None:
        cell = self._hosted[name] = HostedCell(
            name,
            spec,
            channel=self._control.gateway,
            folder=self._home.cell(name),
            tracking_uri=self._tracking_uri,
            poll_s=POLL_S,
        )
        thread = threading.Thread(target=_look_after, args=(cell,), name=f"agent-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()


def _look_after(cell: HostedCell) -> None:
    try:
        cell.run()
    except FencedError as error:
        _log.warning("cell %s is left to the other: %s", cell.name, error.message)


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
        app = create_app(
            control, token=home.token(), logs=agents.logs, local_cells=agents.names, links=links, replica=NAME
        )
        listener = Listen("127.0.0.1", port).bind()
    except Exception as error:
        startup.fail(error)
        raise
    beside = [
        threading.Thread(target=agents.run, args=(stop,), name="agents"),
        threading.Thread(target=_keep, args=(mlflow, stop), name="mlflow-watch"),
    ]
    for thread in beside:
        thread.start()
    try:
        with listener:
            run_api(
                app,
                listener,
                # The folder's lock is ours, so there is nobody whose lease could still stand.
                work=lambda ended: control.campaign(ended, holder=NAME, address=home.api_url(), sole=True),
                on_start=lambda: startup.done("API"),
                on_exit=stop.set,
            )
    finally:
        stop.set()
        for thread in beside:
            thread.join(timeout=10.0)
        store.close()


def _keep(mlflow: MlflowServer, stop: threading.Event) -> None:
    """Start MLflow again where it ended."""
    while not stop.wait(WATCH_S):
        try:
            if mlflow.ensure():
                _log.warning("MLflow had ended and was started again")
        except (HeliosError, OSError) as error:
            _log.warning("MLflow: %s", error)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="helios-daemon")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    configure_logging()
    home = Home(options.home)
    with home.locked("daemon", wait=False):
        serve(home, port=options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
