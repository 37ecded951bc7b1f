"""Work that runs is stopped for other work on simulated cells, and goes on: classes, quotas, budgets, sizes."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helios.adapters.simulated import SimulatedDriver
from helios.control import ControlPlane, apply
from helios.errors import ConflictError
from helios.scheduler import schedule
from helios.scheduler.codec import canonical, decided, read
from helios.spec import Cell, from_json
from helios.store import Record, Store, open_store

START = 1_800_000_000.0
POOL = {"name": "gpu", "capacityType": "reserved", "accelerators": "H100:8", "nodes": 4}


class Clock:
    time = START

    def now(self) -> float:
        return self.time


def is_decided_again(document: dict[str, Any]) -> bool:
    """Whether a recorded cycle, written and read as JSON text, is decided bit by bit as it was."""
    text = canonical(document)
    snapshot, policy, before = read(json.loads(text))
    return canonical(decided(schedule(snapshot, policy))) == canonical(before)


class Fleet:
    """A control plane and simulated cells on one clock that the test turns."""

    def __init__(self, folder: Path, **cells: list[dict[str, Any]]) -> None:
        self.folder, self.clock = folder, Clock()
        self.store: Store = open_store(folder / "helios.db", clock=self.clock)
        self.plane = ControlPlane(self.store, self.clock)
        self.drivers: dict[str, SimulatedDriver] = {}
        for name, pools in cells.items():
            cell = self.document("Cell", name, provider="simulated", nodePools=pools)
            assert isinstance(cell, Cell)
            apply(self.store, cell)
            self.drivers[name] = SimulatedDriver.open(name=name, spec=cell.spec, folder=folder / name, clock=self.clock)
        self.run(2)

    @staticmethod
    def document(kind: str, name: str, **spec: Any) -> Any:
        return from_json({"apiVersion": "helios/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})

    def restart(self) -> None:
        """The control plane dies and another begins over what it left on disk."""
        self.store.close()
        self.store = open_store(self.folder / "helios.db", clock=self.clock)
        self.plane = ControlPlane(self.store, self.clock)

    def close(self) -> None:
        self.store.close()
        for driver in self.drivers.values():
            driver.close()

    def job(self, name: str, *, nodes: Any = 1, qos: str = "standard", runs: str = "4h", **spec: Any) -> Record:
        body = {
            "entrypoint": "train",
            "qos": qos,
            "workers": nodes,
            "resources": {"accelerators": "H100:8", "cpus": 8},
            "config": {"simulation": {"run": runs}},
            "estimate": runs,
            "checkpoint": {"every": "10m", "grace": "30s"},
            **spec,
        }
        return apply(self.store, self.document("Job", name, **body)).record

    def tenant(self, name: str, quota: int, **more: Any) -> None:
        quotas = [{"accelerator": "H100", "nominalQuota": quota, **more}]
        apply(self.store, self.document("Tenant", name, cohort="lab", quotas=quotas))

    def round(self) -> None:
        """The control plane looks once, then every cell's agent does; what stops others is decided alike again."""
        self.plane.tick()
        document = self.plane.snapshot(last=True)
        assert not document["decisions"].get("changes") or is_decided_again(document)
        for name, driver in self.drivers.items():
            desired = self.plane.gateway.desired(name)
            for launch in desired.launches:
                driver.start(launch)
            for stop in desired.stops:
                driver.stop(stop.uid, stop.epoch, grace_s=stop.grace_s)
            keys = [(launch.uid, launch.epoch) for launch in desired.launches]
            keys += [(stop.uid, stop.epoch) for stop in desired.stops]
            self.plane.gateway.report(name, driver.nodes(), [driver.status(*key) for key in keys])

    def run(self, seconds: float, *, step: float = 1.0) -> None:
        """Let time pass, looking every `step` seconds."""
        until = self.clock.time + seconds
        while self.clock.time < until:
            self.clock.time += min(step, until - self.clock.time)
            self.round()

    def state(self, name: str) -> str:
        return self.store.get("Job", name).state

    def status(self, name: str) -> dict[str, Any]:
        return dict(self.store.get("Job", name).status)

    def reasons(self, name: str) -> list[str]:
        return [event.reason for event in self.store.events(kind="Job", name=name)]

    def finish(self, *names: str) -> None:
        """Run until all of these are over."""
        for _ in range(400):
            if all(self.state(name) == "Succeeded" for name in names):
                return
            self.run(300, step=60)
        raise AssertionError({name: self.status(name) for name in names})


@pytest.fixture
def make(memory_folder: Path) -> Iterator[Callable[..., Fleet]]:
    """Builds a `Fleet`; at its end no cell may have seen too much on a node, and no controller have failed."""
    fleets: list[Fleet] = []

    def build(**cells: list[dict[str, Any]]) -> Fleet:
        fleets.append(Fleet(memory_folder, **(cells or {"east": [POOL]})))
        return fleets[-1]

    yield build
    for fleet in fleets:
        errors = [event for event in fleet.store.events(limit=100_000) if event.reason == "ControllerError"]
        violations = [found for driver in fleet.drivers.values() for found in driver.history().violations]
        fleet.close()
        assert not errors
        assert not violations


def test_guaranteed_displaces_preemptible_which_comes_back_and_finishes(make: Callable[..., Fleet]) -> None:
    """The victim checkpoints on notice, leaves, waits, goes on from where it was, and its retries are untouched."""
    fleet = make()
    fleet.job("spot", nodes=4, qos="preemptible", runs="2h")
    fleet.run(3000, step=60)
    fleet.job("prod", nodes=2, qos="guaranteed", runs="1h")
    fleet.run(5)
    assert fleet.state("prod") in {"Admitted", "Starting", "Running"}
    assert fleet.state("spot") == "Recovering"
    (stopped,) = [event for event in fleet.store.events(kind="Job", name="spot") if event.reason == "Preempted"][:1]
    assert "makes room for guaranteed gang prod; costs" in stopped.message
    before = fleet.status("spot")["progress"]["checkpoint_step"]
    assert before >= 2900
    fleet.finish("prod", "spot")
    status = fleet.status("spot")
    assert (status["failures"], status["restartReasons"]) == (0, {"Preempted": 1})
    # Nothing of its two hours was done twice: what it ran before and after adds up.
    assert status["allocation"]["seconds"]["productive"] == pytest.approx(7200 - before, abs=120)


def test_a_restart_between_the_decision_and_the_stop_loses_nothing(make: Callable[..., Fleet]) -> None:
    """The decision is in the store: the next control plane has the victim stopped, and gives its place away."""
    fleet = make()
    fleet.job("spot", nodes=4, qos="preemptible", runs="1h")
    fleet.run(600, step=60)
    fleet.job("prod", nodes=4, qos="guaranteed", runs="1h")
    fleet.plane.tick()
    assert fleet.state("spot") == "Preempting"
    assert fleet.status("spot")["stop"]["beneficiary"] == fleet.store.get("Job", "prod").uid
    fleet.restart()
    fleet.job("late", nodes=4, qos="standard", runs="1h")
    fleet.run(10)
    assert fleet.state("prod") == "Running"
    fleet.finish("prod", "late", "spot")
    assert fleet.reasons("spot").count("Preempted") == 2  # Preempting, then Recovering


@pytest.mark.parametrize("again", [False, True])
def test_the_place_that_was_made_is_kept_through_the_cycles_and_a_restart(
    make: Callable[..., Fleet], again: bool
) -> None:
    """A shorter job of the same class comes while the victim writes its checkpoint: it does not get the place."""
    fleet = make()
    fleet.job("spot", nodes=4, qos="preemptible", runs="2h")
    fleet.run(3000, step=60)
    fleet.job("prod", nodes=4, qos="standard", runs="5h")
    fleet.plane.tick()
    assert fleet.state("spot") == "Preempting"
    assert fleet.status("prod")["promised"]["cell"] == "east"
    if again:
        fleet.restart()
    fleet.job("short", nodes=4, qos="standard", runs="1m")
    fleet.run(60)
    assert (fleet.state("prod"), fleet.state("short")) == ("Running", "Queued")
    assert "promised" not in fleet.status("prod")


def test_standard_is_stopped_for_guaranteed_alone_and_not_before_its_minimum(make: Callable[..., Fleet]) -> None:
    """Half an hour is a standard job's; then guaranteed work may have its place. Standard work waits."""
    fleet = make()
    fleet.job("first", nodes=4, runs="6h")
    fleet.run(3600, step=60)
    fleet.job("second", nodes=4, runs="6h")
    fleet.run(1800, step=60)
    assert fleet.state("first") == "Running"
    fleet.job("prod", nodes=4, qos="guaranteed", runs="1h")
    fleet.run(30)
    assert (fleet.state("first"), fleet.state("prod")) == ("Recovering", "Running")
    fleet.finish("prod")
    fleet.run(900, step=30)
    running = next(name for name in ("first", "second") if fleet.state(name) == "Running")
    fleet.job("again", nodes=4, qos="guaranteed", runs="1h")
    fleet.run(60)
    assert (fleet.state(running), fleet.state("again")) == ("Running", "Queued")
    fleet.run(1800, step=30)
    assert (fleet.state(running), fleet.state("again")) == ("Recovering", "Running")


def test_the_owner_of_lent_quota_gets_it_back(make: Callable[..., Fleet]) -> None:
    """A tenant runs on what another leaves idle; when the owner wants it, borrowed work of the same class leaves."""
    fleet = make()
    fleet.tenant("owner", 32)
    fleet.tenant("guest", 0)
    fleet.job("borrowed", nodes=4, runs="8h", tenant="guest")
    fleet.run(3600, step=60)
    assert fleet.state("borrowed") == "Running"
    fleet.job("mine", nodes=2, runs="1h", tenant="owner")
    fleet.run(120)
    assert (fleet.state("borrowed"), fleet.state("mine")) == ("Recovering", "Running")
    assert "Reclaimed" in fleet.reasons("borrowed")
    fleet.finish("mine", "borrowed")
    assert fleet.status("borrowed")["failures"] == 0


def test_a_tenant_without_cohort_or_limit_borrows_nothing(make: Callable[..., Fleet]) -> None:
    """A borrowing limit is kept, and explained."""
    fleet = make()
    fleet.tenant("owner", 24)
    fleet.tenant("guest", 8, borrowingLimit=8)
    fleet.job("fits", nodes=2, tenant="guest")
    fleet.run(10)
    fleet.job("more", nodes=1, tenant="guest")
    fleet.run(10)
    assert (fleet.state("fits"), fleet.state("more")) == ("Running", "Queued")
    why = fleet.plane.explain("more")
    assert why["reason"] == "QuotaExceeded"
    assert "may borrow 0 more" in why["message"]


def test_a_gang_that_was_preempted_often_is_left_alone(make: Callable[..., Fleet]) -> None:
    """After five preemptions of one gang its place is its own, whoever waits."""
    fleet = make()
    fleet.job("spot", nodes=4, qos="preemptible", runs="4h")
    for index in range(5):
        fleet.run(400, step=20)
        fleet.job(f"prod-{index}", nodes=4, qos="guaranteed", runs="5m")
        fleet.finish(f"prod-{index}")
    fleet.run(400, step=20)
    assert fleet.status("spot")["restartReasons"] == {"Preempted": 5}
    fleet.job("prod", nodes=4, qos="guaranteed", runs="5m")
    fleet.run(600, step=30)
    assert (fleet.state("spot"), fleet.state("prod")) == ("Running", "Queued")


def test_an_elastic_gang_grows_at_once_and_shrinks_for_others(make: Callable[..., Fleet]) -> None:
    """It goes on with more workers where they idle, under the next epoch and without the queue; and gives them back."""
    fleet = make()
    fleet.job("small", nodes=2, runs="1h", qos="guaranteed")
    fleet.job("wide", nodes={"min": 1, "max": 4, "elastic": True}, runs="20h")
    fleet.run(60)
    assert fleet.status("wide")["placement"]["workers"] == 2
    fleet.run(3700, step=60)
    assert fleet.state("small") == "Succeeded"
    fleet.run(60, step=5)
    grown = fleet.status("wide")
    assert (grown["placement"]["workers"], grown["restartReasons"], grown["state"]) == (4, {"Resized": 1}, "Running")
    assert fleet.reasons("wide").count("Admitted") == 1
    fleet.run(3600, step=60)
    fleet.job("prod", nodes=2, runs="1h", qos="guaranteed")
    fleet.run(60, step=5)
    shrunk = fleet.status("wide")
    assert (fleet.state("prod"), shrunk["state"], shrunk["placement"]["workers"]) == ("Running", "Running", 1)
    assert shrunk["failures"] == 0


def test_what_does_not_say_that_it_is_elastic_keeps_its_size(make: Callable[..., Fleet]) -> None:
    """Not set: idle nodes are no reason to stop it. `false`: also when it starts again it has as many as before."""
    fleet = make()
    fleet.job("small", nodes=2, runs="1h", qos="guaranteed")
    fleet.job("unsaid", nodes={"min": 1, "max": 4}, runs="20h")
    fleet.run(8000, step=60)
    assert fleet.status("unsaid")["placement"]["workers"] == 2
    fleet.job("fixed", nodes={"min": 1, "max": 3, "elastic": False}, qos="preemptible", runs="3h")
    fleet.run(600, step=30)
    assert fleet.status("fixed")["placement"]["workers"] == 2
    fleet.job("prod", nodes=2, qos="guaranteed", runs="10m")
    fleet.finish("prod")
    fleet.run(300, step=30)
    assert fleet.status("fixed")["restartReasons"] == {"Preempted": 1}
    assert fleet.status("fixed")["placement"]["workers"] == 2


def test_services_are_never_stopped_for_others(make: Callable[..., Fleet]) -> None:
    """A service holds its place whoever waits, and whatever class it says."""
    fleet = make()
    body = {"application": "a.b:c", "replicas": 4, "resources": {"accelerators": "H100:8"}, "qos": "preemptible"}
    apply(fleet.store, fleet.document("Service", "avatar", **body))
    fleet.run(3600, step=60)
    fleet.job("prod", nodes=1, qos="guaranteed")
    fleet.run(600, step=30)
    assert fleet.store.get("Service", "avatar").state == "Ready"
    assert fleet.state("prod") == "Queued"


def test_parts_of_a_device_are_shared_and_never_overcommitted(make: Callable[..., Fleet]) -> None:
    """Four quarters fill one device; the cell itself counts each device's thousandths."""
    fleet = make(east=[{**POOL, "accelerators": "H100:1", "nodes": 1}])
    for index in range(5):
        fleet.job(f"quarter-{index}", resources={"accelerators": "H100:0.25", "cpus": 1}, runs="1h")
    fleet.run(30)
    running = [item for item in fleet.store.records("Job") if item.state == "Running"]
    assert len(running) == 4
    for item in running:
        place = item.status["placement"]
        assert (place["request"]["share"], place["devices"]) == (250, [0])
    fleet.finish(*(f"quarter-{index}" for index in range(5)))


def test_an_alternative_that_was_granted_reaches_the_cell(make: Callable[..., Fleet]) -> None:
    """Where there is no H100, two A100 do; the launch asks for those and for nothing else."""
    fleet = make(west=[{**POOL, "accelerators": "A100:8", "nodes": 1}])
    fleet.job("any", resources={"accelerators": "H100:1", "alternatives": ["A100:2"], "cpus": 1}, runs="10m")
    fleet.run(10)
    assert fleet.status("any")["placement"]["request"]["accelerators"] == 2
    (launch,) = fleet.plane.gateway.desired("west").launches
    assert launch.spec["resources"] | {"cpus": 1} == {
        "cpus": 1, "memory": "0", "accelerators": "A100:2", "alternatives": [],
    }  # fmt: skip
    fleet.finish("any")


def test_a_reservation_says_when_a_gang_is_expected_to_start(make: Callable[..., Fleet]) -> None:
    """By the estimates of what runs: in `explain`, and in the queue."""
    fleet = make()
    fleet.job("long", nodes=3, runs="2h")
    fleet.run(600, step=60)
    ends = fleet.plane.explain("long")
    assert ends["reservation"] is None
    fleet.job("big", nodes=4, runs="1h")
    fleet.run(5)
    kept = fleet.plane.explain("big")["reservation"]
    assert kept["cell"] == "east"
    assert len(kept["nodes"]) == 4
    (row,) = fleet.plane.queue()
    assert row["reservation"] == kept
    fleet.job("filler", nodes=1, runs="1h")
    fleet.job("filler-too-long", nodes=1, runs="9h")
    fleet.run(10)
    assert fleet.state("filler") == "Running"
    assert fleet.state("filler-too-long") == "Queued"
    fleet.finish("big")


# Recorded and decided again -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_every_live_decision_is_decided_again_from_its_snapshot(make: Callable[..., Fleet], seed: int) -> None:
    """Random work, quotas, prices, racks and spares on three cells; each cycle of the plane replays identically."""
    dice = random.Random(seed)
    kinds = ("H100", "A100", "H100")
    pools = [
        {**POOL, "accelerators": f"{kind}:4", "nodes": dice.randint(2, 6), "price": dice.choice([1.5, 2.0]),
         "spares": dice.randint(0, 1), "topology": {"nodesPerRack": 2, "racksPerBlock": 2}}
        for kind in kinds
    ]  # fmt: skip
    fleet = make(**{name: [pool] for name, pool in zip(("a", "b", "c"), pools, strict=True)})
    for tenant in ("t", "u"):
        fleet.tenant(tenant, dice.randint(4, 12))
    seen = 0
    for index in range(40):
        most = dice.randint(1, 4)
        fleet.job(
            f"job-{index}",
            nodes={"min": dice.randint(1, most), "max": most, "elastic": dice.choice([True, False, None])},
            qos=dice.choice(["guaranteed", "standard", "preemptible"]),
            runs=dice.choice(["5m", "30m", "3h"]),
            tenant=dice.choice(["t", "u", "default"]),
            resources={
                "accelerators": dice.choice(["H100:0.1", "H100:1", "H100:4", "A100:2", "H100:0.35"]),
                "alternatives": dice.choice([[], ["A100:1"]]),
                "cpus": 1,
            },
        )
        fleet.run(dice.choice([5, 60, 600]), step=30)
        document = fleet.plane.snapshot(last=True)
        assert is_decided_again(document)
        assert is_decided_again(fleet.plane.snapshot())
        seen += len(document["decisions"]["admits"])
    assert seen


def test_a_replica_that_decided_nothing_has_no_last_cycle(make: Callable[..., Fleet]) -> None:
    """Another one leads: it is named."""
    fleet = make()
    other = ControlPlane(fleet.store, fleet.clock)
    assert is_decided_again(other.snapshot())
    with pytest.raises(ConflictError, match="no scheduling cycle"):
        other.snapshot(last=True)
