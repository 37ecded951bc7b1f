"""Lies and borrowed names: a cell speaks of its own work alone, and a label makes nobody a member."""

from collections.abc import Callable
from typing import Any

import pytest

from helios.errors import ForbiddenError
from helios.ports import LaunchStatus, Phase


def test_cell_ends_no_work_that_another_one_started(make_fleet: Callable[..., Any]) -> None:
    """What recovers from a start in one cell has not succeeded because another cell says so; its own cell may."""
    fleet = make_fleet({"name": "east"}, {"name": "west"})
    fleet.job(placement={"cells": ["east"]}, retry={"maxRetries": 3})
    key = fleet.running("job")
    fleet.cells["east"].nodes = []
    fleet.cells["east"].end(key, Phase.FAILED, "Error", "boom")
    fleet.settle(2)
    assert fleet.state("job") == "Recovering"
    said = [LaunchStatus(key[0], key[1], Phase.SUCCEEDED, "Completed")]
    fleet.plane.gateway.report("west", fleet.cells["west"].nodes, said)
    fleet.plane.tick()
    assert fleet.state("job") == "Recovering"
    fleet.plane.gateway.report("east", [], said)
    fleet.plane.tick()
    assert fleet.state("job") == "Succeeded"


def test_array_whose_members_name_is_taken_says_so_whatever_the_label(fleet: Any) -> None:
    """A job of a member's name and with the array's label, that the array did not make, does not hang the array."""
    fleet.apply("{kind: Job, metadata: {name: sweep-0, labels: {helios/array: sweep}}, spec: {entrypoint: 'true'}}")
    fleet.job("sweep", array={"size": 2})
    fleet.settle(2)
    assert (fleet.state("sweep"), fleet.status("sweep")["reason"]) == ("Failed", "JobNameTaken")
    fleet.end("sweep-0")
    assert fleet.state("sweep-0") == "Succeeded"


def test_cell_pushes_no_log_of_a_start_that_never_was(fleet: Any) -> None:
    """A cell keeps logs of the starts that it was given, and of none that are yet to come."""
    fleet.job()
    uid, epoch = fleet.running("job")
    fleet.plane.gateway.push_log("local", uid, epoch, offset=0, data=b"line", ended=False)
    with pytest.raises(ForbiddenError, match="was not asked for the log"):
        fleet.plane.gateway.push_log("local", uid, epoch + 1, offset=0, data=b"line", ended=False)
    assert fleet.store.read_log(uid, epoch, offset=0) == (b"line", False)
    assert fleet.store.read_log(uid, epoch + 1, offset=0) == (b"", False)
