"""Live forecasts: what is told of a gang that waits, and how the calibration learns from what became of others."""

from collections.abc import Callable
from typing import Any

import pytest

from helios.control.forecasting import Forecaster
from helios.scheduler import (
    CellState,
    Node,
    PendingGang,
    Policy,
    Readiness,
    Request,
    RunningGang,
    Snapshot,
    TenantState,
)
from helios.spec import QoS
from helios.store import Record, timestamp

NOW = 1_800_000_000.0
NODE = Request(millicpus=1000, accelerator="H100", accelerators=8)


class House:
    """One node that is held for an hour, and jobs that wait for it, on a clock that the test turns."""

    def __init__(self) -> None:
        self.time = NOW
        self.records: dict[str, Record] = {}
        self.qos = QoS.STANDARD
        self.held_s: float | None = 3600.0
        self.forecaster = Forecaster(self, self.snapshot, self, Policy(elastic=False))  # type: ignore[arg-type]

    def now(self) -> float:
        return self.time

    def by_uid(self, uid: str) -> Record | None:
        return self.records.get(uid)

    def queue(self, *uids: str, kind: str = "Job") -> None:
        for uid in uids:
            self.records[uid] = Record(kind, uid, uid=uid, status={"state": "Queued"})

    def start(self, uid: str, at: float) -> None:
        self.records[uid] = Record("Job", uid, uid=uid, status={"state": "Admitted", "admittedAt": timestamp(at)})

    def snapshot(self) -> Snapshot:
        node = Node("n", "p", 64_000, 1 << 40, {"H100": 8})
        pending = [
            PendingGang(uid, uid, "t", self.qos, 0, self.time, NODE, 1, 1, estimate=600.0)
            for uid, record in self.records.items()
            if record.state == "Queued"
        ]
        ends_at = None if self.held_s is None else self.time + self.held_s
        running = RunningGang("r", "t", "c", ("n",), NODE, started_at=self.time, ends_at=ends_at)
        cell = CellState("c", Readiness.READY, (node,))
        return Snapshot(self.time, (cell,), (TenantState("t"),), tuple(pending), (running,))

    def answer(self, uid: str) -> dict[str, Any]:
        return self.forecaster.answer(self.snapshot(), uid)

    def learn(self, n: int, *, waits_s: float = 7200.0) -> None:
        """So many jobs are forecast, and started after that time."""
        for number in range(n):
            self.queue(f"past-{number}")
            self.forecaster.look()
            self.time += waits_s
            self.start(f"past-{number}", self.time)
            self.time += 60.0
        self.forecaster.look()


@pytest.fixture
def house() -> House:
    return House()


def test_start_is_told_before_there_is_a_band(house: House) -> None:
    """When it is expected, and of how many starts how many were seen."""
    house.queue("g")
    assert house.answer("g") == {
        "at": timestamp(NOW + 3600.0),
        "notBefore": None,
        "band": None,
        "calibration": {"learned": 0, "needed": 50},
    }


def test_band_is_learned_from_what_started(house: House) -> None:
    """Jobs that waited for twice as long as was said put the next one's band there."""
    house.learn(60)
    house.queue("g")
    told = house.answer("g")
    assert told["at"] == timestamp(house.time + 3600.0)
    assert told["calibration"] is None
    band = told["band"]
    assert (band["coverage"], band["learned"]) == (0.8, 60)
    assert band["basis"] == "standard, predicted wait 10 min to 1 h"
    expected = timestamp(house.time + 7200.0)[:20]
    assert band["earliest"][:20] == band["latest"][:20] == expected


def test_moment_of_the_start_counts_and_not_of_the_look(house: House) -> None:
    """A round that comes late learns what the record says."""
    house.queue("g")
    house.forecaster.look()
    house.start("g", NOW + 7200.0)
    house.time = NOW + 9e5
    house.forecaster.look()
    house.learn(59)
    house.queue("h")
    assert house.answer("h")["band"]["latest"][:20] == timestamp(house.time + 7200.0)[:20]


def test_admission_before_the_forecast_is_no_start(house: House) -> None:
    """A job that was stopped and waits again bears the moment of its first admission still."""
    record = Record("Job", "g", uid="g", status={"state": "Queued", "admittedAt": timestamp(NOW - 60.0)})
    house.records["g"] = record
    house.learn(49)
    assert house.forecaster.waiting == {"g"}
    house.queue("h")
    assert house.answer("h")["calibration"] == {"learned": 49, "needed": 50}


@pytest.mark.parametrize("gone", [lambda house: house.records.pop("g"), lambda house: house.queue("g", kind="Job")])
def test_job_that_is_gone_is_waited_for_no_more(house: House, gone: Callable[[House], Any]) -> None:
    """Deleted or cancelled, it is no start; one that waits still is kept in mind."""
    house.queue("g")
    house.forecaster.look()
    gone(house)
    house.forecaster.look()
    assert ("g" in house.forecaster.waiting) is ("g" in house.records)
    house.records["g"] = Record("Job", "g", uid="g", status={"state": "Cancelled"})
    house.forecaster.look()
    assert not house.forecaster.waiting


def test_services_are_told_and_not_learned_from(house: House) -> None:
    """They do not say when they were given their place."""
    house.queue("s", kind="Service")
    house.forecaster.look()
    assert not house.forecaster.waiting
    assert house.answer("s")["at"] == timestamp(NOW + 3600.0)


def test_what_never_starts_is_told_no_moment(house: House) -> None:
    """Neither a moment nor a band, nor a promise that one will be learned."""
    house.held_s = None
    house.queue("g")
    house.forecaster.look()
    assert not house.forecaster.waiting
    assert house.answer("g") == {"at": None, "notBefore": None, "band": None, "calibration": None}


def test_what_is_beyond_the_horizon_is_told_as_such(house: House) -> None:
    """Not before a week from now; when, nobody says."""
    house.held_s = 30 * 86_400.0
    house.queue("g")
    told = house.answer("g")
    assert (told["at"], told["notBefore"]) == (None, timestamp(NOW + 7 * 86_400.0))


def test_explain_tells_it_on_the_control_plane(fleet: Any) -> None:
    """A job that asks for what no cell has would never start; what runs has no forecast."""
    fleet.job(resources={"accelerators": "H100:8"})
    fleet.settle(1)
    told = fleet.plane.explain("job")["forecast"]
    assert told == {"at": None, "notBefore": None, "band": None, "calibration": None}
