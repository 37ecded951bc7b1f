"""Many runs of one trace on one fleet: what each is, and how one is made."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

from helios.errors import InputError, NotFoundError
from helios.scheduler import Policy
from helios.simulator.engine import OnProgress, simulate
from helios.simulator.jobs import Workload
from helios.simulator.outcomes import RunResult
from helios.simulator.policies import NAMES, policy_named
from helios.simulator.settings import DAY_S, Settings
from helios.simulator.traces import Trace, load_trace
from helios.simulator.workload import Fleet, Protocol, Window, as_recorded, load_fleet, protocol_fleet, tenant_states

SAMPLE_S = 3600.0
"""Seconds between two samples of the fleet; a window of less than a day still has 24."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run of a study.

    Attributes:
        load: that the workload is drawn at; None: the trace as it was recorded.
        stays: whether each stay of a gang in a cell is kept, for the Gantt chart.
    """

    policy: str
    load: float | None
    seed: int
    stays: bool = False

    def __str__(self) -> str:
        return f"{self.policy}, {'as recorded' if self.load is None else f'load {self.load:g}'}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Done:
    """A run, with the seconds that it took and the processor seconds of them; drawing its workload is not in them."""

    case: Case
    result: RunResult
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Study:
    """What all runs have in common: small enough to be sent to another process, which makes the rest of it itself.

    Attributes:
        trace: name of a public one, or path of a CSV.
        traces: folder of the public ones.
        cells: files and folders of Cell documents; none: the protocol's fleet with so many GPUs.
        window: of what is drawn at a load.
        tail_s: seconds after the last submission of a trace as recorded in which jobs may still end.
    """

    trace: str
    traces: Path | None = None
    cells: tuple[Path, ...] = ()
    gpus: int = 5000
    window: Window = Window()  # noqa: RUF009 - frozen
    cycle_s: float = 30.0
    tail_s: float = 7 * DAY_S
    policy: Policy = Policy()  # noqa: RUF009 - frozen


def cases(policies: Iterable[str], loads: Sequence[float | None], seeds: Iterable[int]) -> Iterator[Case]:
    """Seed by seed and load by load, so that whatever is done of them is the same for all policies.

    Stays are kept of the first seed alone.

    Raises:
        NotFoundError: no policy has such a name.
    """
    listed, numbers = list(dict.fromkeys(policies)), list(seeds)
    for name in listed:
        if name not in NAMES:
            raise NotFoundError("policy", name, known=NAMES, hint=f"known are {', '.join(NAMES)}")
    for seed, load, policy in product(numbers, loads, listed):
        yield Case(policy, load, seed, stays=seed == numbers[0])


class Lab:
    """A study with its trace and fleet read, ready to run any of its cases."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._drawn: tuple[tuple[float | None, int], Workload] | None = None

    @cached_property
    def trace(self) -> Trace:
        return load_trace(self.study.trace, self.study.traces)

    @cached_property
    def fleet(self) -> Fleet:
        return load_fleet(self.study.cells) if self.study.cells else protocol_fleet(gpus=self.study.gpus)

    def workload(self, load: float | None, seed: int) -> Workload:
        """The jobs of a run; those drawn last are kept, since policies come one after the other.

        Raises:
            InputError: the load cannot be reached, or the trace is too short.
            SpecError: a job of the trace fits on no cell; with its row.
        """
        key = (load, 0 if load is None else seed)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = (key, self._draw(*key))
        return self._drawn[1]

    def _draw(self, load: float | None, seed: int) -> Workload:
        if load is not None:
            return Protocol(self.trace, self.fleet).at_load(load, seed, self.study.window)
        if not len(self.trace):
            raise InputError(f"{self.trace.file or self.trace.name} has no jobs")
        return as_recorded(self.trace, self.fleet)

    def run(self, case: Case, *, on_progress: OnProgress | None = None) -> Done:
        """Simulate one case. Raises as `workload` and `simulate` do."""
        workload, fleet = self.workload(case.load, case.seed), self.fleet
        scheduler = policy_named(case.policy, workload, self.study.policy)
        wall, cpu = time.perf_counter(), time.process_time()
        result = simulate(
            workload,
            fleet.cells,
            tenant_states(workload.quotas, fleet),
            scheduler,
            self.settings(case, workload),
            on_progress=on_progress,
        )
        return Done(case, result, time.perf_counter() - wall, time.process_time() - cpu)

    def settings(self, case: Case, workload: Workload) -> Settings:
        """The numbers of one run. What is drawn at a load has its tail among its submissions."""
        # Of a trace as recorded everything is measured, the last submission too.
        window = workload.window or (0.0, workload.horizon_s + 1.0)
        return Settings(
            seed=case.seed,
            cycle_s=self.study.cycle_s,
            sample_s=min(SAMPLE_S, max(60.0, (window[1] - window[0]) / 24)),
            window=window,
            tail_s=self.study.tail_s if case.load is None else 0.0,
            stays=case.stays,
            speeds=self.fleet.speeds,
            alternatives=self.fleet.alternatives,
            half_life=self.study.policy.half_life,
        )
