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
    """How many runs had more productive device time in the window than its load, in a sentence; empty if none."""
    above = [run for run in runs.runs if run.rates.productive > run.load * (1 + ABOVE_LOAD)]
    if not above:
        return ""
    most = max(above, key=lambda run: run.rates.productive - run.load)
    return (
        f"In {len(above)} of {len(runs.runs)} runs more of the device time of the window was productive than its load "
        f"offers, at most {written(most.rates.productive, Unit.SHARE)} ({_name(most)}): work was done that had waited "
        "since before the window, or it was done on slow devices or by small elastic gangs, which take longer for it."
    )


def _name(run: RunMetrics) -> str:
    return f"{run.policy}, load {run.load:g}, seed {run.seed}"
