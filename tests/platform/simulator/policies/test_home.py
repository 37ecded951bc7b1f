"""Every tenant in its own cell."""

from typing import Any


def test_home_stays_home(played: Any, job: Any) -> None:
    """A job waits for its home cell while another lies idle."""
    found = played("home", job("first", 0, 1000), job("second", 10, 100), cells={"x": 1, "y": 1})
    assert (found["second"].started_s, found["second"].cells) == (1000, ("x",))


def test_other_tenants_use_their_own(played: Any, job: Any) -> None:
    """A full cell holds up nobody elsewhere."""
    jobs = (job("first", 0, 1000), job("second", 10, 100), job("other", 20, 100, home="y"))
    found = played("home", *jobs, cells={"x": 1, "y": 1})
    assert (found["other"].started_s, found["other"].cells) == (20, ("y",))


def test_one_without_a_place_is_passed_at_home(played: Any, job: Any) -> None:
    """Within a cell a younger job may pass."""
    jobs = (job("first", 0, 1000), job("wide", 10, 100, 2), job("narrow", 20, 100))
    assert played("home", *jobs, cells={"x": 2, "y": 2})["narrow"].started_s == 20
