"""The agents of `helios up`: one for each cell that this machine can run, as cells come, change and go."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helios.cli.daemon import Agents
from helios.cli.home import Home
from helios.control import ControlPlane, apply, request_delete
from helios.spec import from_json
from helios.store import open_store

Apply = Callable[..., None]


class Embedded:
    """A control plane and its agents, without engines."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.store = open_store(folder / "helios.db")
        self.control = ControlPlane(self.store)
        self.agents = Agents(self.home, self.control, lambda: "")
        self.stop = threading.Event()
        self.threads = [
            threading.Thread(target=self.control.run, args=(self.stop,)),
            threading.Thread(target=self.agents.run, args=(self.stop,)),
        ]
        for thread in self.threads:
            thread.start()

    def apply(self, kind: str, name: str, **spec: Any) -> None:
        document = {"apiVersion": "helios/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        apply(self.store, from_json(document))

    def until(self, found: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 30
        while not found():
            assert time.monotonic() < deadline, [dict(record.status) for record in self.store.records("Job")]
            self.store.wait(self.store.revision(), 0.2)

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()
        self.store.close()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Embedded]:
    made = Embedded(tmp_path)
    yield made
    made.end()


def pools(nodes: int) -> list[dict[str, Any]]:
    return [{"name": "a", "capacityType": "reserved", "nodes": nodes, "accelerators": "H100:8"}]


def test_simulated_cells_have_their_agents(embedded: Embedded) -> None:
    """Cells that are simulated become Ready here, run work, show its log, and are let go of when they are gone."""
    for name in ("east", "west"):
        simulation = {"start": "0s", "run": "1s"}
        embedded.apply("Cell", name, provider="simulated", nodePools=pools(2), simulation=simulation)
    embedded.until(lambda: {record.state for record in embedded.store.records("Cell")} == {"Ready"})
    embedded.apply("Job", "job", entrypoint="true", resources={"accelerators": "H100:8"}, workers=2)
    embedded.until(lambda: embedded.store.get("Job", "job").state == "Succeeded")
    data, after = embedded.agents.logs(embedded.store.get("Job", "job").uid, 1, 0)
    assert b"job" in data
    assert after == len(data)
    assert embedded.agents.logs("nobody", 1, 7) == (b"", 7)
    request_delete(embedded.store, "Cell", "west")
    embedded.until(lambda: embedded.agents.names() == {"east"})


def test_changed_cell_has_its_new_nodes(embedded: Embedded) -> None:
    """A cell that is applied again with more nodes has them soon after."""
    for nodes in (1, 3):
        embedded.apply("Cell", "east", provider="simulated", nodePools=pools(nodes))
        embedded.until(lambda: len(embedded.store.get("Cell", "east").status.get("nodes", [])) == nodes)  # noqa: B023


def test_cells_of_clouds_have_no_agent_here(embedded: Embedded) -> None:
    """A cell that this machine cannot run is left to its own agent."""
    cloud = [{"name": "a", "capacityType": "reserved", "nodes": 1, "instanceType": "p5.48xlarge"}]
    embedded.apply("Cell", "cloud", provider="aws", region="us-east-1", nodePools=cloud)
    embedded.apply("Cell", "east", provider="simulated", nodePools=pools(1))
    embedded.until(lambda: embedded.agents.names() == {"east"})
