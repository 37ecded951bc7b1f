"""A small trace of ten weeks with the traits that matter: unequal tenants, bursts, a few long and wide jobs."""

from collections.abc import Callable

import numpy as np
import pytest

from helios.simulator.traces import Trace
from helios.simulator.traces.trace import DAY_S, WEEK_S, cut_to_nodes
from helios.simulator.workload import Fleet, protocol_fleet

WEEKS = 10
TENANTS = ("astro", "bio", "chem", "dynamics", "earth")


def made_trace(jobs: int = 6000, *, seed: int = 7, given: dict[str, object] | None = None) -> Trace:
    dice = np.random.default_rng(seed)
    # Half of the jobs come in bursts of a hundred within a minute.
    bursts = np.repeat(dice.random(jobs // 200) * WEEKS * WEEK_S, 100)[: jobs // 2]
    moments = np.sort(
        np.concatenate([bursts + dice.random(len(bursts)) * 60, dice.random(jobs - len(bursts)) * WEEKS * WEEK_S])
    )
    moments = np.minimum(moments, WEEKS * WEEK_S - 1)
    durations = np.minimum(np.ceil(np.exp(dice.normal(7.5, 2.0, jobs))), 20 * DAY_S)
    sizes = dice.choice([1, 1, 1, 2, 4, 8, 16, 32], jobs)
    workers, gpus = cut_to_nodes(sizes)
    tenant = np.minimum((dice.random(jobs) ** 2 * len(TENANTS)).astype(np.int64), len(TENANTS) - 1)
    return Trace(
        name="made",
        file="made.csv",
        weeks=WEEKS,
        job_ids=tuple(map(str, range(jobs))),
        lines=np.arange(jobs) + 2,
        submitted_s=moments,
        duration_s=durations,
        workers=workers,
        gpus=gpus,
        share=np.zeros(jobs, np.int64),
        tenant=tenant,
        tenants=TENANTS,
        notes=("made: every job.",),
    )


@pytest.fixture(scope="session")
def trace() -> Trace:
    return made_trace()


@pytest.fixture(scope="session")
def make_trace() -> Callable[..., Trace]:
    return made_trace


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    return protocol_fleet(gpus=1000)
