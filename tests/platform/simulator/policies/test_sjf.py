"""Shortest job first, by the truth."""

from typing import Any


def test_shortest_goes_first_whatever_is_said_of_it(played: Any, job: Any) -> None:
    """The order is that of true run times, not of estimates or age."""
    queue = (job("long", 10, 400, estimate_s=50), job("short", 20, 100, estimate_s=900))
    found = played("sjf-oracle", job("runs", 0, 500), *queue)
    assert (found["short"].started_s, found["long"].started_s) == (500, 600)


def test_nothing_is_stopped(played: Any, job: Any) -> None:
    """A short job waits for a long one that runs."""
    found = played("sjf-oracle", job("long", 0, 36_000), job("short", 10, 60))
    assert (found["short"].started_s, found["long"].preemptions) == (36_000, 0)


def test_one_that_has_no_place_is_passed(played: Any, job: Any) -> None:
    """A longer job that fits starts beside a shorter one that does not."""
    queue = (job("wide", 10, 100, 2), job("narrow", 20, 5000))
    assert played("sjf-oracle", job("runs", 0, 1000), *queue, cells={"x": 2})["narrow"].started_s == 20
