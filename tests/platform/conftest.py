"""A control plane over a real store, with a cell that plays what a test scripts."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helios.control import ControlPlane, apply
from helios.ports import Launch, LaunchStatus, NodeObservation, Phase
from helios.spec import from_json
from helios.store import Event, Store, open_store

TOKEN = "a-token-for-tests"
DEADLINE_S = 20.0


def document(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "helios/v1", "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


@dataclass
class ScriptedCell:
    """Says of each launch first Starting, then Running, then that it succeeded, unless it is held or to fail."""

    plane: ControlPlane
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
    plane: ControlPlane
    cell: ScriptedCell

    def apply(self, kind: str, name: str, spec: dict[str, Any]) -> None:
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
    store = open_store(tmp_path / "state" / "helios.db")
    plane = ControlPlane(store)
    made = House(store, plane, ScriptedCell(plane))
    made.apply(
        "Cell", "local", {"provider": "local", "nodePools": [{"name": "m", "capacityType": "reserved", "nodes": 1}]}
    )
    stop = threading.Event()

    def agent() -> None:
        while not stop.wait(0.02):
            made.cell.step()

    threads = [threading.Thread(target=plane.run, args=(stop,)), threading.Thread(target=agent)]
    for thread in threads:
        thread.start()
    made.until("Cell", "local", lambda cell: cell.state == "Ready")
    yield made
    stop.set()
    store.add_events([Event("Cell", "local", "", "TestEnds", "so that nobody waits for a change any more")])
    for thread in threads:
        thread.join(10)
    store.close()
