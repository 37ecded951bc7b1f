"""Headroom of services, live: load rises on a simulated cell, room is held, lent, and given back to a new replica."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helios.adapters.simulated import SimulatedDriver
from helios.control import ControlPlane, apply
from helios.control.headroom import heard, within_quota
from helios.control.measuring import headroom_by_tenant
from helios.control.service import next_due
from helios.control.standing import Standing
from helios.scheduler import Headroom, QuotaState, Request, RunningGang, Snapshot, TenantState
from helios.scheduler.codec import read
from helios.spec import Cell, QoS, from_json
from helios.store import Record, Store, open_store
from helios.telemetry import metrics

EIGHT = 1_800_000_000.0
"""Eight in the morning, UTC."""
RISING = {"load": {"points": [{"at": "0s", "replicas": 0.5}, {"at": "9h", "replicas": 1.6}]}}
"""From nine on there is work for another replica."""


class Clock:
    time = EIGHT

    def now(self) -> float:
        return self.time


class Fleet:
    """A control plane and one simulated cell of some nodes of 8 GPUs, on a clock that the test turns."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self.folder, self.clock = folder, Clock()
        self.store: Store = open_store(folder / "helios.db", clock=self.clock)
        self.plane = ControlPlane(self.store, self.clock)
        pools = [{"name": "gpu", "capacityType": "reserved", "accelerators": "H100:8", "nodes": nodes}]
        cell = self.apply("Cell", "east", provider="simulated", nodePools=pools)
        assert isinstance(cell, Cell)
        self.driver = SimulatedDriver.open(name="east", spec=cell.spec, folder=folder / "east", clock=self.clock)
        self.run(2)

    def apply(self, kind: str, name: str, **spec: Any) -> Any:
        document = from_json({"apiVersion": "helios/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
        apply(self.store, document)
        return document

    def service(self, *, replicas: int = 1, simulation: Any = RISING, **more: Any) -> None:
        resources, spec = {"accelerators": "H100:8", "cpus": 8}, {"headroom": {"max": 1}, **more}
        config = {"simulation": simulation}
        self.apply(
            "Service", "avatar", application="m:f", replicas=replicas, resources=resources, config=config, **spec
        )

    def job(self, name: str, qos: str, runs: str = "8h") -> None:
        resources = {"accelerators": "H100:8", "cpus": 8}
        config = {"simulation": {"run": runs}}
        self.apply("Job", name, entrypoint="train", qos=qos, resources=resources, config=config, estimate=runs)

    def restart(self) -> None:
        """The control plane dies and another begins over what it left on disk."""
        self.store.close()
        self.store = open_store(self.folder / "helios.db", clock=self.clock)
        self.plane = ControlPlane(self.store, self.clock)

    def close(self) -> None:
        self.store.close()
        self.driver.close()

    def run(self, seconds: float, *, step: float = 1.0) -> None:
        """Let time pass, looking every `step` seconds."""
        until = self.clock.time + seconds
        while self.clock.time < until:
            self.clock.time += min(step, until - self.clock.time)
            self.plane.tick()
            desired = self.plane.gateway.desired("east")
            for launch in desired.launches:
                self.driver.start(launch)
            for stop in desired.stops:
                self.driver.stop(stop.uid, stop.epoch, grace_s=stop.grace_s)
            keys = [(launch.uid, launch.epoch) for launch in desired.launches]
            keys += [(stop.uid, stop.epoch) for stop in desired.stops]
            self.plane.gateway.report("east", self.driver.nodes(), [self.driver.status(*key) for key in keys])

    def run_until(self, state: str, kind: str, name: str, *, within_s: int, workers: int = 1) -> None:
        """Run until the object is in that state with so many workers."""
        until = self.clock.time + within_s
        while (found := self.get(kind, name)).state != state or found.status["placement"]["workers"] != workers:
            assert self.clock.time < until, found.status
            self.run(1)

    def get(self, kind: str, name: str) -> Record:
        return self.store.get(kind, name)

    @property
    def held(self) -> dict[str, int]:
        """Replicas that room is held for in what the scheduler sees, by service."""
        snapshot = self.plane.snapshot()["snapshot"]
        return {one["service"]: one["replicas"] for one in snapshot.get("headroom", [])}


@pytest.fixture
def make_fleet(tmp_path: Path) -> Iterator[Callable[[int], Fleet]]:
    fleets: list[Fleet] = []

    def build(nodes: int) -> Fleet:
        fleets.append(Fleet(tmp_path, nodes))
        return fleets[-1]

    yield build
    for fleet in fleets:
        fleet.close()


def test_room_is_held_as_load_rises_and_standard_work_leaves_it_alone(make_fleet: Callable[[int], Fleet]) -> None:
    """A load, a forecast, room: what is not `preemptible` or `guaranteed` waits, and says for what."""
    fleet = make_fleet(2)
    fleet.service()
    fleet.run_until("Ready", "Service", "avatar", within_s=10)
    assert not fleet.held
    fleet.run(3700, step=60)
    assert fleet.get("Service", "avatar").status["load"] == 1.6
    assert fleet.held == {"avatar": 1}
    fleet.job("steady", "standard")
    fleet.run(60)
    steady = fleet.get("Job", "steady")
    assert (steady.state, steady.status["reason"]) == ("Queued", "ReservedForOthers")


def test_held_room_is_lent_and_a_new_replica_has_it_at_once(make_fleet: Callable[[int], Fleet]) -> None:
    """`preemptible` work runs there until the service grows, and leaves for that within its grace."""
    fleet = make_fleet(2)
    fleet.service()
    fleet.run(3700, step=60)
    assert fleet.held == {"avatar": 1}
    fleet.job("borrower", "preemptible")
    fleet.run(180, step=10)
    assert fleet.get("Job", "borrower").state == "Running"
    fleet.service(replicas=2)
    fleet.run_until("Ready", "Service", "avatar", within_s=15, workers=2)
    assert fleet.get("Job", "borrower").status["restartReasons"] == {"Preempted": 1}


def test_a_borrower_is_not_stopped_for_standard_work(make_fleet: Callable[[int], Fleet]) -> None:
    """What a borrower gives up is the service's, so nobody who may not have it stops the borrower for it."""
    fleet = make_fleet(2)
    fleet.service()
    fleet.run(3700, step=60)
    fleet.job("borrower", "preemptible")
    fleet.run_until("Running", "Job", "borrower", within_s=10)
    fleet.job("steady", "standard")
    fleet.run(1200, step=20)
    assert fleet.held == {"avatar": 1}
    assert not fleet.get("Job", "borrower").status.get("restartReasons")


def test_what_was_learned_outlives_the_control_plane(make_fleet: Callable[[int], Fleet]) -> None:
    """The next leader holds the same at once, and goes on with the same days."""
    fleet = make_fleet(2)
    fleet.service()
    fleet.run(3 * 86_400, step=1800)
    before = fleet.get("Service", "avatar").status
    assert before["headroom"]["basis"] == "hour of day"
    fleet.restart()
    assert fleet.held == {"avatar": 1}
    fleet.run(3600, step=600)
    assert len(fleet.get("Service", "avatar").status["demand"]["opens"].split()) == 74


def test_room_is_held_before_the_hour_at_which_load_rises(make_fleet: Callable[[int], Fleet]) -> None:
    """On the fourth day the rise at nine is expected, though the load has not moved; at four it is not."""
    fleet = make_fleet(2)
    fleet.service()
    fleet.run(68 * 3600, step=600)
    assert (fleet.get("Service", "avatar").status["load"], fleet.held) == (0.5, {})
    fleet.run(4 * 3600, step=600)
    assert (fleet.get("Service", "avatar").status["load"], fleet.held) == (0.5, {"avatar": 1})


def test_without_a_reported_load_the_replicas_that_were_asked_for_are_the_demand(
    make_fleet: Callable[[int], Fleet],
) -> None:
    """What people did before, they may do again; where nobody did, nothing is held."""
    fleet = make_fleet(4)
    fleet.service(simulation={}, headroom={"max": 2})
    fleet.run(60)
    assert not fleet.held
    fleet.service(simulation={}, replicas=2, headroom={"max": 2})
    fleet.run(60)
    assert fleet.held == {"avatar": 1}
    assert fleet.get("Service", "avatar").status["headroom"]["signal"] == "replicas"


def test_nothing_is_held_any_more_for_what_was_switched_off(make_fleet: Callable[[int], Fleet]) -> None:
    """No replicas, no `headroom` in the spec: no room, and nothing left in the status of the latter."""
    fleet = make_fleet(2)
    fleet.service()
    fleet.run(3700, step=60)
    fleet.service(replicas=0)
    fleet.run(5)
    assert not fleet.held
    fleet.service(headroom=None)
    fleet.run(5)
    assert not {"load", "demand", "headroom"} & fleet.get("Service", "avatar").status.keys()


def test_room_is_held_in_the_cell_of_the_service_and_shown(make_fleet: Callable[[int], Fleet]) -> None:
    """Its replicas are one gang in one cell; the metric counts it by tenant, while this replica leads."""
    fleet = make_fleet(2)
    fleet.service()
    fleet.run(3700, step=60)
    (held,) = fleet.plane.snapshot()["snapshot"]["headroom"]
    assert (held["cells"], held["tenant"]) == (["east"], "default")
    metrics.set_headroom(headroom_by_tenant(read(fleet.plane.snapshot())[0]))
    assert 'helios_headroom_replicas{accelerator="H100",tenant="default"} 1.0' in metrics.render()[0].decode()
    metrics.set_leader(False)
    assert "helios_headroom_replicas{" not in metrics.render()[0].decode()


def test_what_is_gone_or_cannot_be_read_has_nothing_held() -> None:
    """The room goes with the record; and an hour is looked at when it begins."""
    spec = {
        "tenant": "lab",
        "qos": "guaranteed",
        "application": "m:f",
        "replicas": 1,
        "resources": {"accelerators": "H100:8"},
        "placement": {"cells": ["east"]},
    }  # fmt: skip
    status = {"state": "Pending", "headroom": {"replicas": 1}, "demand": {"hour": 500_000}}
    record = Record("Service", "avatar", uid="u", spec=spec, status=status)
    standing = Standing()
    standing.put(record)
    (held,) = standing.snapshot(EIGHT).headroom
    assert (held.replicas, held.cells) == (1, ("east",))
    standing.drop(record)
    assert not standing.snapshot(EIGHT).headroom
    assert next_due(record) == 500_001 * 3600.0


@pytest.mark.parametrize("load", [None, "3", True, -1, float("nan"), float("inf"), 1e9])
def test_a_load_that_is_none_is_not_taken_in(load: Any) -> None:
    """A driver may report anything."""
    record = Record("Service", "a", status={"load": 2.0})
    assert heard(record, {"load": load}) is record
    assert heard(record, {}) is record
    assert heard(record, {"load": 2.001}) is record
    assert heard(record, {"load": 3}).status["load"] == 3.0


def quotas(nominal: dict[str, int] | None) -> Snapshot:
    given = None if nominal is None else {kind: QuotaState(count) for kind, count in nominal.items()}
    running = RunningGang("r", "lab", "east", ("n1",), Request(accelerator="H100", accelerators=8), qos=QoS.STANDARD)
    return Snapshot(0.0, tenants=(TenantState("lab", given),), running=(running,))


@pytest.mark.parametrize(
    ("nominal", "held"),
    [(None, [3, 2]), ({"H100": 100}, [3, 2]), ({"H100": 40}, [3, 1]), ({"H100": 8}, []), ({"A100": 100}, [])],
)
def test_no_more_is_held_than_the_tenant_could_use(nominal: dict[str, int] | None, held: list[int]) -> None:
    """Headroom counts against the tenant's own quota beside what it holds, service by service; never borrowed."""
    eight = Request(accelerator="H100", accelerators=8)
    wanted = [Headroom("b", "lab", eight, 2), Headroom("a", "lab", eight, 3)]
    assert [one.replicas for one in within_quota(wanted, quotas(nominal))] == held
