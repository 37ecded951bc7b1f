"""Shortest remaining time first, by the truth, stopping what runs."""

from typing import Any

from helios.spec import QoS


def test_shorter_job_stops_what_runs(played: Any, job: Any) -> None:
    """A long job leaves at the next round, keeps its work, and goes on afterwards."""
    found = played("srtf-oracle", job("long", 0, 36_000), job("short", 600, 600))
    assert found["short"].started_s == 610
    assert found["long"].preemptions == 1
    assert found["long"].ended_s == 36_000 + 610


def test_time_left_counts_not_the_whole(played: Any, job: Any) -> None:
    """What is nearly done is not stopped for one that is shorter as a whole and longer than what is left."""
    found = played("srtf-oracle", job("old", 0, 3600), job("new", 3000, 1200))
    assert (found["old"].preemptions, found["new"].started_s) == (0, 3600)


def test_what_was_stopped_is_ordered_by_what_is_left(played: Any, job: Any) -> None:
    """Work that is safe is taken off: 1,000 s left of 3,600 come before another of 1,500."""
    jobs = (job("old", 0, 3600), job("short", 2600, 300), job("other", 2650, 1500))
    found = played("srtf-oracle", *jobs)
    assert found["old"].preemptions == 1
    assert found["old"].ended_s < found["other"].ended_s


def test_guaranteed_work_is_never_stopped(played: Any, job: Any) -> None:
    """What is promised is kept by every policy."""
    found = played("srtf-oracle", job("long", 0, 5000, qos=QoS.GUARANTEED), job("short", 600, 60, qos=QoS.GUARANTEED))
    assert found["long"].preemptions == 0
