"""The load that services of simulated cells report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helios.adapters.simulated import SimulatedDriver
from helios.ports import Launch, Phase
from helios.spec import CellSpec

MIDNIGHT = 20_000 * 86_400.0
POOL = {"name": "cpu", "capacityType": "reserved", "nodes": 2}
DAY = [{"at": "1h", "replicas": 2.5}, {"at": "9h", "replicas": 4}]


@dataclass
class Clock:
    time: float = MIDNIGHT

    def now(self) -> float:
        return self.time


def opened(folder: Path, clock: Clock) -> SimulatedDriver:
    spec = CellSpec.model_validate({"provider": "simulated", "nodePools": [POOL]})
    return SimulatedDriver.open(name="east", spec=spec, folder=folder, clock=clock)


def launch(simulation: dict[str, Any], kind: str = "Service") -> Launch:
    spec = {"application": "m:f", "config": {"simulation": simulation}}
    return Launch(kind, "avatar", "u", 1, spec, 1, ("east-cpu-0",))


def test_load_follows_the_hours_of_each_day(tmp_path: Path) -> None:
    """Before the day's first step the last one of the day before holds; it outlives whoever looks."""
    clock = Clock()
    driver = opened(tmp_path, clock)
    driver.start(launch({"load": {"points": DAY}}))
    assert not driver.status("u", 1).progress  # it does not run yet
    clock.time += 60
    assert driver.status("u", 1).progress == {"load": 4}
    clock.time = MIDNIGHT + 3600
    assert driver.status("u", 1).progress == {"load": 2.5}
    driver.close()
    driver = opened(tmp_path, clock)
    clock.time = MIDNIGHT + 5 * 86_400 + 9 * 3600 - 1
    assert driver.status("u", 1).progress == {"load": 2.5}
    clock.time += 1
    assert driver.status("u", 1).progress == {"load": 4}
    driver.close()


def test_a_service_that_says_nothing_of_load_reports_none(tmp_path: Path) -> None:
    """And one that is over does not either."""
    clock = Clock()
    driver = opened(tmp_path, clock)
    driver.start(launch({}))
    clock.time += 60
    assert (driver.status("u", 1).phase, driver.status("u", 1).progress) == (Phase.RUNNING, {})
    driver.close()


@pytest.mark.parametrize(
    ("load", "said"),
    [
        ({"points": []}, "at least 1 item"),
        ({"points": [{"at": "9h", "replicas": 1}, {"at": "1h", "replicas": 2}]}, "after the point before"),
        ({"every": "1h", "points": [{"at": "2h", "replicas": 1}]}, "within the period of 3600 s"),
        ({"points": [{"at": "1h", "replicas": -1}]}, "greater than or equal to 0"),
        ({"point": DAY}, "point"),
    ],
)
def test_a_load_that_is_none_fails_the_start(tmp_path: Path, load: Any, said: str) -> None:
    """With the reason of a config that cannot be right, which is not tried again."""
    driver = opened(tmp_path, Clock())
    driver.start(launch({"load": load}))
    status = driver.status("u", 1)
    assert (status.phase, status.reason) == (Phase.FAILED, "InvalidConfig")
    assert said in status.message
    driver.close()
