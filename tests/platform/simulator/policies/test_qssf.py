"""Quasi-shortest-service-first: predicted GPU time."""

from typing import Any


def test_order_is_that_of_predictions(played: Any, job: Any) -> None:
    """What is predicted to be short goes first, though in truth it is long."""
    queue = (job("long", 20, 400, estimate_s=50), job("short", 10, 100, estimate_s=900))
    found = played("qssf", job("runs", 0, 500), *queue)
    assert (found["long"].started_s, found["short"].started_s) == (500, 900)


def test_service_is_time_times_devices(played: Any, job: Any) -> None:
    """A job of one GPU for 300 s comes before one of eight for 100 s."""
    found = played("qssf", job("runs", 0, 500), job("wide", 10, 100), job("narrow", 20, 300, gpus=1))
    assert found["narrow"].started_s == 500
    assert found["wide"].started_s == found["narrow"].ended_s


def test_finished_jobs_of_a_group_teach_it(played: Any, job: Any) -> None:
    """After eight runs of a kind that nobody estimates, the next one's place follows from them."""
    past = [job(f"past{index}", index * 100, 60, estimate_s=None, group="kind") for index in range(8)]
    queue = (job("said", 1010, 200), job("learned", 1020, 60, estimate_s=None, group="kind"))
    found = played("qssf", *past, job("runs", 1000, 500), *queue)
    assert (found["learned"].started_s, found["said"].started_s) == (1500, 1560)


def test_what_nothing_is_known_of_counts_as_a_day(played: Any, job: Any) -> None:
    """An estimate of two hours comes before none at all, and that before one of two days."""
    queue = (job("days", 10, 60, estimate_s=200_000), job("unknown", 20, 60, estimate_s=None), job("hours", 30, 7200))
    found = played("qssf", job("runs", 0, 50_000), *queue)
    starts = {name: found[name].started_s for name in ("days", "unknown", "hours")}
    assert sorted(starts, key=lambda name: starts[name]) == ["hours", "unknown", "days"]
