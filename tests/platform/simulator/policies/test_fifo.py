"""First in, first out, without and with EASY backfilling."""

from typing import Any

import pytest

from helios.spec import QoS


@pytest.fixture
def queue(job: Any) -> list[Any]:
    """For two nodes: one that runs, one that needs both, a short and a long one that fit beside the first."""
    return [job("runs", 0, 1000), job("head", 10, 500, 2), job("short", 20, 100), job("long", 30, 5000)]


def test_fifo_lets_nobody_pass(played: Any, queue: list[Any]) -> None:
    """A node stays idle while the head of the queue waits for two."""
    found = played("fifo", *queue, cells={"x": 2})
    assert found["head"].started_s == 1000
    assert min(found["short"].started_s, found["long"].started_s) == found["head"].ended_s == 1500


def test_fifo_goes_by_class_before_age(played: Any, job: Any) -> None:
    """Classes come first in every order."""
    found = played("fifo", job("runs", 0, 500), job("older", 10, 100), job("better", 20, 100, qos=QoS.GUARANTEED))
    assert found["better"].started_s == 500
    assert found["older"].started_s == 600


def test_fifo_holds_up_those_of_one_device_type_alone(played: Any, job: Any) -> None:
    """Whoever asks for a type that nobody waits for is not held up by another type's queue."""
    found = played("fifo", job("runs", 0, 1000), job("head", 10, 500), job("cpus", 20, 100, gpus=0, cpus=0.0))
    assert (found["head"].started_s, found["cpus"].started_s) == (1000, 20)


def test_easy_backfills_what_ends_in_time(played: Any, queue: list[Any]) -> None:
    """One that is done before the reserved start takes the idle node; one that is not stays in the queue."""
    found = played("fifo-easy", *queue, cells={"x": 2})
    assert (found["short"].started_s, found["short"].ended_s) == (20, 120)
    assert found["long"].started_s == 1500


def test_easy_does_not_delay_the_head(played: Any, queue: list[Any]) -> None:
    """The head starts when it would have started without anybody passing."""
    assert played("fifo-easy", *queue, cells={"x": 2})["head"].started_s == 1000


def test_easy_goes_by_estimates(played: Any, queue: list[Any], job: Any) -> None:
    """One that is said to be longer than the gap is not let through, though in truth it is short."""
    queue[2] = job("short", 20, 100, estimate_s=2000)
    assert played("fifo-easy", *queue, cells={"x": 2})["short"].started_s == 1500
