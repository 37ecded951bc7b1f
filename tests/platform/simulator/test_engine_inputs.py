"""What is wrong with a run is said before it begins, with the job, cell or setting that is wrong."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from helios.errors import InputError
from helios.scheduler import CellState, Node, Readiness, TenantState
from helios.simulator.engine import simulate
from helios.simulator.jobs import TraceJob, Workload
from helios.simulator.settings import Settings

JOB = TraceJob("job-1", 0.0, 100.0, 1, 1)
NODE = Node("n", "pool", 8000, 2**30, {"GPU": 8})
CELL = CellState("x", Readiness.READY, (NODE, replace(NODE, name="m")))


def refused(jobs: Sequence[TraceJob], cells: Sequence[CellState], tenants: Sequence[TenantState], fifo: Any) -> str:
    with pytest.raises(InputError) as caught:
        simulate(Workload("w", tuple(jobs), 100.0), cells, tenants, fifo)
    assert fifo.looks == []
    return caught.value.message


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ({"duration_s": -1.0}, "job-1: duration_s is -1.0; a number of 0 or more is needed"),
        ({"duration_s": math.nan}, "duration_s is nan"),
        ({"duration_s": math.inf}, "duration_s is inf"),
        ({"submitted_s": -0.1}, "submitted_s is -0.1"),
        ({"gpus": -2}, "gpus is -2"),
        ({"workers": 0}, "workers is 0; at least 1 is needed"),
        ({"workers": 3, "max_workers": 2}, "max_workers is 2; no fewer than `workers` are needed"),
        ({"gpus": 0, "share": 1500}, "share is 1500; thousandths of one device"),
        ({"fails_at": 1.5}, "fails_at is 1.5; a share of 0 to 1 is needed"),
        ({"checkpoint_s": 0.0}, "checkpoint_s is 0.0; seconds above 0 are needed"),
        ({"checkpoint_cost_s": -5.0}, "checkpoint_cost_s is -5.0"),
        ({"restart_s": -5.0}, "restart_s is -5.0"),
        ({"estimate_s": -5.0}, "estimate_s is -5.0"),
        ({"data": (("x", -1.0),)}, "data is"),
        ({"workers": 17}, "job-1 needs 17 workers with 1 GPU each; cell x, which has the most room, holds 16"),
        ({"gpus": 9}, "needs 1 workers with 9 GPU each; no node of any cell holds one"),
        ({"accelerator": "H100"}, "needs 1 workers with 1 H100 each; no node of any cell holds one"),
        ({"cpus": 9.0}, "no node of any cell holds one"),
        ({"gpus": 0, "share": 600, "workers": 17}, "17 workers with 0.6 GPU each; cell x, which has the most room"),
        ({"tenant": "taem"}, "job-1: no tenant 'taem' is there (did you mean 'team'?)"),
    ],
)
def test_job_that_cannot_be_is_named(job: dict[str, Any], words: str, fifo: Any) -> None:
    """Negative numbers, numbers that are none, gangs larger than the fleet, tenants that are none."""
    assert words in refused([replace(JOB, **{"tenant": "team", **job})], [CELL], [TenantState("team")], fifo)


def test_many_wrong_jobs_are_counted(fifo: Any) -> None:
    """The first three are shown."""
    jobs = [replace(JOB, job_id=f"job-{index}", gpus=-1) for index in range(10)]
    assert refused(jobs, [CELL], [], fifo).endswith("job-2: gpus is -1; a number of 0 or more is needed; so are 7 more")


def test_job_that_is_there_twice_is_refused(fifo: Any) -> None:
    """Ids are what decisions name."""
    assert refused([JOB, JOB], [CELL], [], fifo) == "jobs: job-1 is there 2 times"


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([], "the fleet has no cell"),
        ([replace(CELL, nodes=())], "cells: x has no accelerator on any node"),
        ([replace(CELL, nodes=(replace(NODE, accelerators={}),))], "x has no accelerator on any node"),
        ([CELL, CELL], "cells: x is there twice"),
        ([replace(CELL, nodes=(NODE, NODE))], "cell x: node n is there twice"),
        ([replace(CELL, ingress_rate=0.0)], "x: ingress rate is 0.0; above 0 is needed"),
    ],
)
def test_cell_that_cannot_be_is_named(cells: Sequence[CellState], words: str, fifo: Any) -> None:
    """No cell, cells without accelerators, names that are there twice."""
    assert words in refused([JOB], cells, [], fifo)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"cycle_s": 0.0}, "settings: cycle_s is 0; a number above 0 is needed"),
        ({"failures": -1.0}, "settings: failures is -1.0; a number of 0 or more is needed"),
        ({"repair_s": math.nan}, "settings: repair_s is nan"),
        ({"start_failures": 1.5}, "settings: start_failures is 1.5; a share of 0 to 1 is needed"),
        ({"speedups": ()}, "settings: speedups is ()"),
        ({"speeds": {"A100": 0.0}}, "settings: speeds: A100 is 0.0; a number above 0 is needed"),
    ],
)
def test_setting_that_cannot_be_is_named(setting: dict[str, Any], words: str) -> None:
    """Costs and rates are checked where they are made."""
    with pytest.raises(InputError) as caught:
        Settings(**setting)
    assert words in caught.value.message


def test_device_types_that_do_as_well_are_room_too(fifo: Any) -> None:
    """A gang that no cell holds with what it asks for is no mistake where it may have something else."""
    jobs = Workload("w", (replace(JOB, accelerator="H100"),), 100.0)
    result = simulate(jobs, [CELL], [], fifo, Settings(alternatives={"H100": ("GPU",)}, speeds={"H100": 2.0}, tail_s=0))
    assert result.outcomes[0].run_s == 60 + 50
    assert fifo.looks[0].pending[0].alternatives[0].accelerator == "GPU"
