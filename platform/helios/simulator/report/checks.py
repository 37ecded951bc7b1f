"""Whether runs are to be believed: bounds that must hold, and device time that must add up."""

from collections.abc import Iterator

from helios.simulator.metrics import RunMetrics
from helios.simulator.report.figures import Unit, written
from helios.simulator.report.runs import Runs

UNACCOUNTED = 0.02
"""Share of device time by which the samples and the outcomes of a run may differ: samples are taken now and then."""

ABOVE_LOAD = 0.02
"""Share by which productive device time may be above the load before that is said."""

_MOST = 20  # sentences


def doubts(runs: Runs) -> list[str]:
    """What is wrong with any run, a sentence each; empty where all bounds hold and everything adds up."""
    found = [f"{_name(run)}: {doubt}" for run in runs.runs for doubt in _doubts(run)]
    return found if len(found) <= _MOST else [*found[:_MOST], f"and {len(found) - _MOST} more"]


def _doubts(run: RunMetrics) -> Iterator[str]:
    share = Unit.SHARE
    if run.bounds.faster:
        yield f"{run.bounds.faster} jobs ended sooner than their run time"
    if run.jobs.jobs and run.jobs.completion.mean < run.bounds.completion_s * (1 - 1e-6):
        yield "the mean completion time is below that of the pooled fluid fleet"
    if run.rates.allocated > 1 + 1e-6:
        yield f"{written(run.rates.allocated, share)} of the healthy devices were allocated"
    if run.rates.productive > 1 + 1e-6:
        yield f"{written(run.rates.productive, share)} of the healthy devices were productive"
    if abs(run.rates.unaccounted) > UNACCOUNTED:
        yield f"samples and jobs differ by {written(run.rates.unaccounted, share)} of the healthy device time"


def above_load(runs: Runs) -> str:
    """How many runs' measured jobs had more productive device time than was offered, in a sentence; empty if none."""
    above = [(_used(run) / max(run.load, 1e-9), run) for run in runs.runs if _used(run) > run.load * (1 + ABOVE_LOAD)]
    if not above:
        return ""
    _, most = max(above, key=lambda each: each[0])
    return (
        f"In {len(above)} of {len(runs.runs)} runs the jobs of the window had more productive device time than their "
        f"load offers, at most {_used(most):.3f} of the fleet's ({_name(most)}). A window can hold more work than the "
        "load that it was drawn for, and slow devices and small elastic gangs take longer for the same work."
    )


def _used(run: RunMetrics) -> float:
    return run.jobs.productive / (run.devices * (run.window[1] - run.window[0]))


def _name(run: RunMetrics) -> str:
    return f"{run.policy}, load {run.load:g}, seed {run.seed}"
