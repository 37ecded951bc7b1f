"""A control plane over a real store, with a cell that plays what a test scripts; a PostgreSQL server for who asks."""

import importlib.util
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helios.ports import Launch, LaunchStatus, NodeObservation, Phase
from helios.spec import from_json
from helios.store import Event, Store, open_store

if TYPE_CHECKING:
    from helios.control import ControlPlane

TOKEN = "a-token-for-tests"


def _beside(name: str) -> Any:
    """A module of this folder, which is no package: imported by its path, once."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


postgres_server = _beside("postgres_server")
DEADLINE_S = 20.0


def document(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "helios/v1", "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


@dataclass
class ScriptedCell:
    """Says of each launch first Starting, then Running, then that it succeeded, unless it is held or to fail."""

    plane: "ControlPlane"
    name: str = "local"
    held: set[str] = field(default_factory=set)
    failing: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Reason and message by job name."""
    logs: dict[tuple[str, int], bytes] = field(default_factory=dict)
    looks: dict[tuple[str, int], int] = field(default_factory=dict)

    def step(self) -> None:
        """Fetch what is wanted and report on it, once."""
        desired = self.plane.gateway.desired(self.name)
        statuses = [self._status(launch) for launch in desired.launches]
        statuses += [LaunchStatus(stop.uid, stop.epoch, Phase.STOPPED, "Stopped") for stop in desired.stops]
        node = NodeObservation("machine", "machine", cpus=4, memory=64 * 2**30)
        self.plane.gateway.report(self.name, [node], statuses)

    def read(self, uid: str, epoch: int, offset: int) -> tuple[bytes, int]:
        data = self.logs.get((uid, epoch), b"")[offset:]
        return data, offset + len(data)

    def _status(self, launch: Launch) -> LaunchStatus:
        key = (launch.uid, launch.epoch)
        looks = self.looks[key] = self.looks.get(key, 0) + 1
        if looks == 1:
            return LaunchStatus(*key, Phase.STARTING)
        if launch.kind == "Service":
            return LaunchStatus(*key, Phase.RUNNING, outputs={"url": f"http://127.0.0.1:8000/{launch.name}"})
        self.logs.setdefault(key, f"{launch.name} epoch {launch.epoch}\n".encode())
        if looks == 2 or launch.name in self.held:
            progress = {"phase": "training", "step": 40, "total_steps": 100, "loss": 0.5, "tokens_per_second": 1000.0}
            return LaunchStatus(*key, Phase.RUNNING, progress={**progress, "eta_seconds": 6.0})
        if launch.name in self.failing:
            return LaunchStatus(*key, Phase.FAILED, *self.failing[launch.name])
        outputs = {"checkpoint": f"/bucket/{launch.name}", "run_id": launch.uid}
        return LaunchStatus(*key, Phase.SUCCEEDED, "Completed", outputs=outputs)


@dataclass
class House:
    """A control plane that lives, as `helios up` would compose it, but for the engines."""

    store: Store
    plane: "ControlPlane"
    cell: ScriptedCell

    def apply(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        from helios.control import apply  # the store's own tests stand without the control plane

        apply(self.store, from_json(document(kind, name, spec)))

    def until(self, kind: str, name: str, found: Callable[[Any], bool]) -> Any:
        """Wait until a record is as wanted, and return it."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            revision = self.store.revision()
            record = self.store.find(kind, name)
            if found(record):
                return record
            assert time.monotonic() < deadline, f"{kind} {name} is {record}"
            self.store.wait(revision, 1.0)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A running control plane with the cell `local`, Ready."""
    from helios.control import ControlPlane  # see above

    store = open_store(tmp_path / "state" / "helios.db")
    plane = ControlPlane(store)
    made = House(store, plane, ScriptedCell(plane))
    made.apply(
        "Cell", "local", {"provider": "local", "nodePools": [{"name": "m", "capacityType": "reserved", "nodes": 1}]}
    )
    stop, agent_stop = threading.Event(), threading.Event()

    def agent() -> None:
        while not agent_stop.wait(0.02):
            made.cell.step()

    living, reporting = threading.Thread(target=plane.run, args=(stop,)), threading.Thread(target=agent)
    living.start()
    reporting.start()
    made.until("Cell", "local", lambda cell: cell.state == "Ready")
    yield made
    stop.set()
    store.add_events([Event("Cell", "local", "", "TestEnds", "so that nobody waits for a change any more")])
    living.join(10)
    agent_stop.set()  # after the control plane, which would wait a second for the next report
    reporting.join(10)
    store.close()


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """A PostgreSQL server of this session; fails where PostgreSQL is not installed."""
    with tempfile.TemporaryDirectory(prefix="helios-") as folder:
        Path(folder).chmod(0o755)
        with postgres_server.postgres_server(Path(folder), fsync=False) as url:
            yield url


@pytest.fixture(scope="session")
def _postgres_template(postgres_server_url: str) -> str:
    """Name of a database with the newest schema and nothing in it."""
    url: str = postgres_server.fresh_database(postgres_server_url)
    open_store(url).close()
    return url.partition("?")[0].rpartition("/")[2]


@pytest.fixture
def postgres_url_factory(postgres_server_url: str, _postgres_template: str) -> Iterator[Callable[..., str]]:
    """Makes databases that live as long as the test: with an empty store in it, or with nothing (`bare=True`)."""
    made: list[str] = []

    def make(*, bare: bool = False) -> str:
        template = {} if bare else {"template": _postgres_template}
        made.append(postgres_server.fresh_database(postgres_server_url, **template))
        return made[-1]

    yield make
    for url in made:
        postgres_server.drop_database(url)


@pytest.fixture
def postgres_url(postgres_url_factory: Callable[..., str]) -> str:
    """URL of a PostgreSQL database with an empty store."""
    return postgres_url_factory()
