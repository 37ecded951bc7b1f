"""The fair control: the least-loaded feasible cell, there by best fit."""

from typing import Any


def test_cell_with_the_lowest_share_in_use_is_taken(played: Any, job: Any) -> None:
    """A quarter in use is less than a half: the larger cell takes the third job, the smaller one the second."""
    jobs = [job(name, at, 1000, gpus=4) for name, at in (("a", 0), ("b", 10), ("c", 20))]
    found = played("control", *jobs, cells={"x": 2, "y": 1})
    assert [found[name].cells for name in "abc"] == [("x",), ("y",), ("x",)]


def test_cell_without_room_is_not_feasible(played: Any, job: Any) -> None:
    """However little of the larger cell is in use, a gang goes where all of it fits."""
    halves = [job(f"half{index}", 0, 1000, gpus=5) for index in range(3)]
    found = played("control", *halves, job("whole", 10, 100), cells={"x": 3, "y": 1})
    assert found["whole"].started_s == 10


def test_best_fit_keeps_nodes_whole(played: Any, job: Any) -> None:
    """The small gang goes to the node that it fills, so that a whole node is left for the large one."""
    jobs = (job("big", 0, 1000, gpus=6), job("small", 10, 1000, gpus=2), job("node", 20, 100))
    assert played("control", *jobs, cells={"x": 2})["node"].started_s == 20


def test_oldest_is_served_first_and_may_be_passed(played: Any, job: Any) -> None:
    """By age; one that has no place holds up nobody."""
    jobs = (job("runs", 0, 1000), job("wide", 10, 100, 2), job("old", 20, 2000), job("new", 30, 10))
    found = played("control", *jobs, cells={"x": 2})
    assert (found["old"].started_s, found["new"].started_s) == (20, 1000)
