"""All runs of a report as one table: figures by policy, load and seed, and what sets them apart."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from helios.errors import InputError
from helios.simulator.metrics import Comparison, Estimate, RunMetrics, flat, interval, paired
from helios.simulator.report.figures import Figure
from helios.simulator.report.roles import Roles

_GAPS = (0.02, 0.01, 0.005, 0.0)


@dataclass(frozen=True)
class Runs:
    """Runs on one trace.

    Attributes:
        reference: the load at which policies are compared in tables.
    """

    trace: str
    runs: tuple[RunMetrics, ...]
    roles: Roles
    reference: float

    @cached_property
    def policies(self) -> list[str]:
        return sorted({run.policy for run in self.runs})

    @cached_property
    def loads(self) -> list[float]:
        return sorted({run.load for run in self.runs})

    @cached_property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})

    @cached_property
    def _rows(self) -> Mapping[tuple[str, float, int], Mapping[str, float]]:
        return {(run.policy, run.load, run.seed): flat(run) for run in self.runs}

    def of(self, policy: str, load: float | None = None) -> list[RunMetrics]:
        """A policy's runs, at one load or at all."""
        return [run for run in self.runs if run.policy == policy and load in {None, run.load}]

    def values(self, policy: str, load: float, key: str) -> dict[int, float]:
        """A figure by seed; seeds whose run has none are left out."""
        found = {seed: self._rows.get((policy, load, seed), {}).get(key, math.nan) for seed in self.seeds}
        return {seed: value for seed, value in found.items() if not math.isnan(value)}

    def estimate(self, policy: str, figure: Figure, load: float | None = None) -> Estimate:
        """Mean over seeds with its interval, at the reference load if none is named."""
        return interval(list(self.values(policy, self.reference if load is None else load, figure.key).values()))

    def compare(self, ours: str, theirs: str, figure: Figure) -> Comparison:
        """Two policies at the reference load, over the seeds that both were run with."""
        mine, other = (self.values(policy, self.reference, figure.key) for policy in (ours, theirs))
        seeds = sorted(mine.keys() & other.keys())
        return paired([mine[seed] for seed in seeds], [other[seed] for seed in seeds])

    def short_of_seeds(self, policy: str) -> str:
        """`2 seeds` for a policy that was run with fewer of them than others were at the reference load; else empty."""
        count = len(self.of(policy, self.reference))
        most = max(len(self.of(other, self.reference)) for other in self.policies)
        return "" if count == most else f"{count} seed{'s'[: count != 1]}"

    def common(self, policies: Collection[str]) -> "Runs":
        """The runs of those policies, with the seeds alone that all of them were run with at the reference load."""
        seeds = set(self.seeds)
        for policy in policies:
            seeds &= {run.seed for run in self.of(policy, self.reference)}
        kept = tuple(run for run in self.runs if run.policy in policies and run.seed in seeds)
        return replace(self, runs=kept)

    def best_baseline(self, figure: Figure) -> str | None:
        """The policy that does best in this figure at the reference load, of those that see no more than ours."""
        means = {
            policy: self.estimate(policy, figure).value
            for policy in self.roles.baselines(self.policies)
            if self.values(policy, self.reference, figure.key)
        }
        if not means:
            return None
        return (min if figure.better == "lower" else max)(means, key=lambda policy: means[policy])


def tables(runs: Iterable[RunMetrics], roles: Roles, reference: float) -> list[Runs]:
    """Runs by trace; the reference load is the one that was run nearest to the one asked for.

    Raises:
        InputError: the same run is there twice.
    """
    by_trace: dict[str, list[RunMetrics]] = {}
    for run in runs:
        by_trace.setdefault(run.trace, []).append(run)
    found = []
    for trace, measured in sorted(by_trace.items()):
        names = load_names(measured)
        named = tuple(replace(run, load=names[run.load]) for run in measured)
        found.append(Runs(trace, named, roles, nearest_load(sorted(set(names.values())), reference)))
    return found


def load_names(runs: Sequence[RunMetrics]) -> Mapping[float, float]:
    """What each load of one trace's runs is called: those that were meant to be the same have one name.

    A drawn workload has the load that was asked for only nearly, and another with each seed. Loads that lie close
    together are one, unless that would make one of two runs of the same policy and seed.

    Raises:
        InputError: a policy was run twice at exactly one load with one seed.
    """
    for gap in _GAPS:
        names = _named(sorted({run.load for run in runs}), gap)
        counts = Counter((run.policy, names[run.load], run.seed) for run in runs)
        (policy, load, seed), most = counts.most_common(1)[0]
        if most == 1:
            return names
    raise InputError(f"{policy!r} was run {most} times on {runs[0].trace!r} at load {load:g} with seed {seed}")


def _named(loads: Sequence[float], gap: float) -> dict[float, float]:
    """Names of ascending loads, of which those nearer than `gap` to the one before are the same."""
    groups: list[list[float]] = []
    for load in loads:
        if groups and load - groups[-1][-1] < gap:
            groups[-1].append(load)
        else:
            groups.append([load])
    digits = 2 if gap >= 0.01 else 6
    return {load: round(sum(group) / len(group), digits) for group in groups for load in group}


def nearest_load(loads: Sequence[float], wanted: float) -> float:
    return min(loads, key=lambda load: (abs(load - wanted), load))
