"""A small cluster on which nothing breaks, and jobs on it under a policy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from helios.scheduler import CellState, Node, Policy, Readiness, TenantState
from helios.simulator.engine import simulate
from helios.simulator.jobs import TraceJob, Workload
from helios.simulator.outcomes import JobOutcome, RunResult
from helios.simulator.policies import policy_named
from helios.simulator.settings import Settings

CALM = Settings(
    failures=0.0,
    reclaims=0.0,
    start_failures=0.0,
    domain_penalty=0.0,
    cycle_s=10.0,
    stop_s=0.0,
    tail_s=30 * 86_400.0,
    stays=True,
)


def cell(name: str, nodes: int) -> CellState:
    """Nodes of eight GPUs each."""
    made = tuple(Node(f"{name}{index}", "pool", 0, 0, {"GPU": 8}) for index in range(nodes))
    return CellState(name, Readiness.READY, made)


def made_job(name: str, at: float, seconds: float, nodes: int = 1, **changed: object) -> TraceJob:
    """Whole nodes, an owner who knows how long it takes, work that is saved every minute, no time to start."""
    job = TraceJob(
        name, at, seconds, nodes, 8, estimate_s=seconds, restart_s=0.0, checkpoint_s=60.0, group=name, home="x"
    )
    return replace(job, **changed)  # type: ignore[arg-type]


def played_result(
    policy: str,
    *jobs: TraceJob,
    cells: Mapping[str, int] | None = None,
    tenants: Sequence[TenantState] = (),
    settings: Settings = CALM,
) -> RunResult:
    """Jobs under a policy on cells of so many nodes each; one cell `x` of one node where none are given."""
    workload = Workload("made", jobs, max(job.submitted_s for job in jobs))
    fleet = [cell(name, nodes) for name, nodes in (cells or {"x": 1}).items()]
    return simulate(workload, fleet, tenants, policy_named(policy, workload, Policy()), settings)


def played_jobs(policy: str, *jobs: TraceJob, **made: object) -> dict[str, JobOutcome]:
    result = played_result(policy, *jobs, **made)  # type: ignore[arg-type]
    return {outcome.job_id: outcome for outcome in result.outcomes}


@pytest.fixture
def job() -> Callable[..., TraceJob]:
    return made_job


@pytest.fixture
def play() -> Callable[..., RunResult]:
    return played_result


@pytest.fixture
def played() -> Callable[..., dict[str, JobOutcome]]:
    return played_jobs
