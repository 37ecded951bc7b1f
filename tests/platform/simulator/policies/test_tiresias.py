"""Least attained service in two queues, with preemption and promotion."""

from typing import Any

from helios.simulator.policies.tiresias import KNOB, THRESHOLD

DEMOTED_S = THRESHOLD / 8
"""Seconds after which a job of one node has attained so much that it falls into the second queue."""


def test_job_is_demoted_once_it_has_attained_enough(played: Any, job: Any) -> None:
    """A long job leaves for a new one in the round after it fell, and goes on when that is done."""
    found = played("tiresias", job("long", 0, 36_000), job("new", 600, 600))
    assert DEMOTED_S <= found["new"].started_s <= DEMOTED_S + 320
    assert found["long"].preemptions >= 1
    assert found["long"].ended_s > found["new"].ended_s


def test_no_run_time_is_looked_at(played: Any, job: Any) -> None:
    """Estimates change nothing."""
    jobs = (job("long", 0, 36_000), job("new", 600, 600))
    told = (job("long", 0, 36_000, estimate_s=1), job("new", 600, 600, estimate_s=1e6))
    first, second = played("tiresias", *jobs), played("tiresias", *told)
    assert [one.ended_s for one in first.values()] == [one.ended_s for one in second.values()]


def test_service_counts_devices(played: Any, job: Any) -> None:
    """A job of one GPU stays in the first queue eight times as long as one of a whole node."""
    jobs = [job("old", 0, 20_000), *(job(f"old{index}", 0, 20_000, gpus=1) for index in range(8)), job("new", 1400, 60)]
    found = played("tiresias", *jobs, cells={"x": 2})
    assert found["old"].preemptions >= 1
    assert not any(found[f"old{index}"].preemptions for index in range(8))


def test_long_wait_promotes(play: Any, job: Any) -> None:
    """A demoted job comes on again once it has waited for eight times what it ran, though new ones keep coming."""
    news = [job(f"new{index:02}", 1400 + index * 1200, 1200) for index in range(30)]
    stays = [stay for stay in play("tiresias", job("old", 0, 36_000), *news).stays if stay.job_id == "old"]
    first, again = stays[:2]
    ran = first.until_s - first.since_s
    assert ran >= DEMOTED_S
    assert first.until_s + KNOB * ran < again.since_s < first.until_s + KNOB * ran + 1500


def test_nothing_is_stopped_for_one_of_its_own_queue(played: Any, job: Any) -> None:
    """Within a queue it is first come, first served: the older of two demoted jobs is not stopped again and again."""
    found = played("tiresias", job("first", 0, 36_000), job("second", 600, 36_000))
    assert found["first"].preemptions + found["second"].preemptions < 10


def test_promoted_job_stays_until_it_has_attained_as_much_again(play: Any, job: Any) -> None:
    """Promotion begins a job's account anew."""
    news = [job(f"new{index:02}", 1400 + index * 1200, 1200) for index in range(30)]
    stays = [stay for stay in play("tiresias", job("old", 0, 36_000), *news).stays if stay.job_id == "old"]
    again = stays[1]
    assert again.until_s - again.since_s >= DEMOTED_S
