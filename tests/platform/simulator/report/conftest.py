"""Runs of made-up policies, made once, and the report on them."""

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from helios.simulator.metrics import RunMetrics, measure
from helios.simulator.outcomes import RunResult
from helios.simulator.report import Roles, write_report
from helios.simulator.report.runs import Runs, tables


def _beside(name: str) -> Any:
    """A module of this folder, which is no package: imported by its path, once."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plausible = _beside("plausible")
POLICIES = (
    "helios",
    "control",
    "kueue",
    "helios-cell-control",
    "helios-global-control",
    "helios-both-control",
    "sjf-oracle",
    "helios-no-backfill",
)
SYNTHETIC = ("qos", "checkpoint_s")
NOTE = "Sizes were never scaled."


@dataclass(frozen=True)
class Written:
    """A report, what it was made of, and what making it gave."""

    folder: Path
    results: Sequence[RunResult]
    measured: Sequence[RunMetrics]

    @property
    def html(self) -> str:
        return (self.folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="package")
def results() -> Sequence[RunResult]:
    """Eight policies at two loads with two seeds, over four days of which one is measured."""
    return [
        plausible.run(policy, load, seed, days=4.0) for policy in POLICIES for load in (0.6, 0.85) for seed in (0, 1)
    ]


@pytest.fixture(scope="package")
def written(results: Sequence[RunResult], tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The report on all of them; runs come from a generator, as they do where they do not fit in memory."""
    folder = tmp_path_factory.mktemp("report") / "out"
    runs = (result for result in results)
    measured = write_report(runs, folder, synthetic=SYNTHETIC, notes=(NOTE,), command="helios simulate --report out")
    return Written(folder, results, measured)


MakeRuns = Callable[..., Runs]


@pytest.fixture(scope="package")
def make_runs(results: Sequence[RunResult]) -> MakeRuns:
    """Runs with given figures: `{policy: {load: [a change of the metrics a seed]}}`, all else as in one real run."""
    plain = measure(results[0])

    def make(changes: Mapping[str, Mapping[float, Sequence[Mapping[str, Any]]]], **roles: Any) -> Runs:
        runs = [
            _changed(replace(plain, policy=policy, load=load, seed=seed), change)
            for policy, by_load in changes.items()
            for load, seeds in by_load.items()
            for seed, change in enumerate(seeds)
        ]
        return tables(runs, Roles(**roles), 0.85)[0]

    return make


def _changed(value: Any, change: Mapping[str, Any]) -> Any:
    """The dataclass with fields replaced, nested where the new value is a mapping of fields."""
    new = {}
    for name, each in change.items():
        old = getattr(value, name)
        if name == "classes":
            new[name] = old | {qos: _changed(old[qos], part) for qos, part in each.items()}
        else:
            new[name] = _changed(old, each) if isinstance(each, Mapping) else each
    return replace(value, **new)
