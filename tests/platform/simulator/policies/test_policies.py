"""All policies by their names, and what holds of each."""

from typing import Any

import pytest

from helios.errors import NotFoundError
from helios.scheduler import Policy
from helios.simulator.jobs import Workload
from helios.simulator.policies import NAMES, ORACLES, policy_named
from helios.spec import QoS

EMPTY = Workload("none", (), 0.0)


@pytest.fixture(scope="module")
def busy() -> list[tuple[str, float, float, int, dict[str, Any]]]:
    """Forty jobs of all classes and sizes, more than two cells hold at once."""
    return [
        (
            f"j{index:02}",
            index * 97.0 % 2000,
            300.0 + index * 311 % 4000,
            1 + index % 3 // 2,
            {"gpus": (1, 2, 4, 8)[index % 4], "qos": list(QoS)[index % 3], "tenant": "ab"[index % 2]},
        )
        for index in range(40)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_policy_has_the_name_that_it_is_found_by(name: str) -> None:
    """Reports tell policies apart by their names."""
    assert policy_named(name, EMPTY, Policy()).name == name


@pytest.mark.parametrize(("wrong", "near"), [("qsf", "qssf"), ("Tiresias", "tiresias"), ("helios-no-preemtion", "ion")])
def test_unknown_name_is_an_error_with_the_nearest(wrong: str, near: str) -> None:
    """A slip of the pen says what was meant."""
    with pytest.raises(NotFoundError, match=f"no policy is named '{wrong}'.*did you mean '.*{near}'"):
        policy_named(wrong, EMPTY, Policy())


def test_oracles_are_policies() -> None:
    """Whoever sees the truth is named, so that no report takes it for a baseline."""
    assert set(NAMES) >= ORACLES
    assert {name for name in NAMES if name.endswith("-oracle")} == ORACLES


@pytest.mark.parametrize("name", NAMES)
def test_every_policy_is_deterministic_and_finishes_everything(name: str, play: Any, job: Any, busy: Any) -> None:
    """The same jobs have the same outcomes, nobody starves, and none is quicker than its work."""
    jobs = [job(uid, at, seconds, nodes, **changed) for uid, at, seconds, nodes, changed in busy]
    first, second = (play(name, *jobs, cells={"x": 3, "y": 2}) for _ in range(2))
    assert first.outcomes == second.outcomes
    assert first.stays == second.stays
    assert all(one.ended_s is not None and one.completion_s >= one.run_s - 1e-6 for one in first.outcomes)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("helios")])
def test_guaranteed_work_is_stopped_by_no_baseline(name: str, play: Any, job: Any, busy: Any) -> None:
    """The classes mean the same to all that are compared."""
    jobs = [job(uid, at, seconds, nodes, **changed) for uid, at, seconds, nodes, changed in busy]
    found = play(name, *jobs, cells={"x": 3, "y": 2}).outcomes
    assert not any(one.preemptions for one in found if one.qos is QoS.GUARANTEED)
