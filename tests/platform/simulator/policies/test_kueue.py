"""Quota with borrowing, reclaim, and preemption by priority."""

from typing import Any

import pytest

from helios.scheduler import QuotaState, TenantState
from helios.spec import QoS


def tenants(*, cohort: str = "all", borrowing: int | None = None) -> list[TenantState]:
    """Two with a node each."""
    return [TenantState(name, {"GPU": QuotaState(8, borrowing=borrowing)}, cohort=cohort) for name in ("a", "b")]


@pytest.fixture
def borrower(job: Any) -> list[Any]:
    return [job("own", 0, 5000, tenant="a"), job("borrowed", 10, 5000, tenant="a")]


def test_idle_quota_of_the_cohort_is_borrowed(played: Any, borrower: list[Any]) -> None:
    """A tenant uses what another leaves idle."""
    assert played("kueue", *borrower, cells={"x": 2}, tenants=tenants())["borrowed"].started_s == 10


@pytest.mark.parametrize("limits", [{"cohort": ""}, {"borrowing": 0}])
def test_nothing_is_borrowed_beyond_limits(played: Any, borrower: list[Any], limits: dict[str, Any]) -> None:
    """Without a cohort, or with a limit of nothing, a tenant keeps to its nominal quota though nodes are idle."""
    found = played("kueue", *borrower, cells={"x": 2}, tenants=tenants(**limits))
    assert found["borrowed"].started_s == 5000


def test_owner_reclaims_what_is_borrowed(played: Any, borrower: list[Any], job: Any) -> None:
    """The borrowing tenant's latest gang leaves as soon as the owner asks, of the same class or not."""
    found = played("kueue", *borrower, job("owner", 500, 100, tenant="b"), cells={"x": 2}, tenants=tenants())
    assert found["borrowed"].preemptions >= 1
    assert found["own"].preemptions == 0


def test_owner_gets_what_was_reclaimed_for_it(played: Any, borrower: list[Any], job: Any) -> None:
    """Who is within its nominal quota comes before who borrows (Kueue's order of entries), however old that is."""
    found = played("kueue", *borrower, job("owner", 500, 100, tenant="b"), cells={"x": 2}, tenants=tenants())
    assert found["owner"].started_s == 510
    assert found["borrowed"].preemptions == 1


def test_latest_of_a_lower_priority_is_stopped(played: Any, job: Any) -> None:
    """Of two that would do, the one that was admitted last."""
    low = [job(name, at, 5000, qos=QoS.PREEMPTIBLE) for name, at in (("old", 0), ("late", 100))]
    found = played("kueue", *low, job("urgent", 500, 100, qos=QoS.STANDARD), cells={"x": 2})
    assert found["urgent"].started_s == 510
    assert (found["old"].preemptions, found["late"].preemptions) == (0, 1)


def test_lowest_priority_is_stopped_before_a_later_one(played: Any, job: Any) -> None:
    """Priority comes before the time of admission."""
    low = (job("preemptible", 0, 5000, qos=QoS.PREEMPTIBLE), job("standard", 100, 5000))
    found = played("kueue", *low, job("urgent", 500, 100, qos=QoS.GUARANTEED), cells={"x": 2})
    assert (found["preemptible"].preemptions, found["standard"].preemptions) == (1, 0)


def test_equal_priority_and_guaranteed_work_are_not_stopped(played: Any, job: Any) -> None:
    """Without a quota to reclaim, nobody makes room for one of its own class."""
    for qos in QoS:
        found = played("kueue", job("runs", 0, 5000, qos=qos), job("waits", 500, 100, qos=qos))
        assert (found["runs"].preemptions, found["waits"].started_s) == (0, 5000)


def test_cost_of_stopping_is_not_asked_for(played: Any, job: Any) -> None:
    """The latest is stopped although it loses an hour of work and the other one nothing."""
    low = (
        job("saved", 0, 50_000, qos=QoS.PREEMPTIBLE),
        job("unsaved", 100, 50_000, qos=QoS.PREEMPTIBLE, checkpoint_s=None),
    )
    found = played("kueue", *low, job("urgent", 3700, 100), cells={"x": 2})
    assert found["unsaved"].preemptions == 1
    assert found["unsaved"].recomputed > 8 * 3000
