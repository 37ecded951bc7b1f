"""The figures that a report speaks of: what each is called, its unit, and which way is better."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from helios.spec import QoS


class Unit(StrEnum):
    SECONDS = "s"
    SHARE = "share"
    COUNT = ""
    RATIO = "x"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a run.

    Attributes:
        key: its name in `metrics.flat`.
        better: `higher` or `lower`.
    """

    key: str
    title: str
    unit: Unit
    better: str


def delay_p99(qos: QoS) -> Figure:
    return Figure(f"{qos}.delay.p99", f"p99 queueing delay, {qos}", Unit.SECONDS, "lower")


def attainment(qos: QoS) -> Figure:
    return Figure(f"{qos}.attainment", f"objective attainment, {qos}", Unit.SHARE, "higher")


MEAN_JCT = Figure("all.completion.mean", "mean JCT", Unit.SECONDS, "lower")
GOODPUT = Figure("rates.productive", "goodput (productive share)", Unit.SHARE, "higher")
LOST = Figure("rates.lost", "lost share", Unit.SHARE, "lower")
STRANDED = Figure("rates.stranded", "stranded share", Unit.SHARE, "lower")
FRAGMENTATION = Figure("rates.fragmentation", "fragmentation", Unit.SHARE, "lower")
WORSE_OFF = Figure("tenants.worse_off", "tenants worse off than alone", Unit.COUNT, "lower")
UNFINISHED = Figure("all.unfinished", "unfinished jobs", Unit.COUNT, "lower")

HEADLINE: Sequence[Figure] = (
    *(delay_p99(qos) for qos in QoS),
    MEAN_JCT,
    GOODPUT,
    LOST,
    STRANDED,
    *(attainment(qos) for qos in QoS),
)
"""What the table of policies shows."""

MORE_TIMES: Sequence[Figure] = (
    Figure("all.completion.p50", "median JCT", Unit.SECONDS, "lower"),
    Figure("all.completion.p99", "p99 JCT", Unit.SECONDS, "lower"),
    Figure("all.completion_ended.mean", "mean JCT without unfinished jobs", Unit.SECONDS, "lower"),
    Figure("standard.delay.mean", "mean queueing delay, standard", Unit.SECONDS, "lower"),
    Figure("standard.delay.p50", "median queueing delay, standard", Unit.SECONDS, "lower"),
    Figure("all.delay.longest", "longest wait", Unit.SECONDS, "lower"),
    UNFINISHED,
)
MORE_SHARES: Sequence[Figure] = (
    Figure("rates.allocated", "allocated share", Unit.SHARE, "higher"),
    FRAGMENTATION,
    Figure("rho.mean", "finish-time fairness, mean", Unit.RATIO, "lower"),
    Figure("rho.p99", "finish-time fairness, p99", Unit.RATIO, "lower"),
    Figure("jain", "Jain's index over tenants", Unit.SHARE, "higher"),
    WORSE_OFF,
    Figure("all.preemptions", "preemptions a job", Unit.COUNT, "lower"),
    Figure("all.cross_rack", "gangs across racks", Unit.SHARE, "lower"),
)

_STEPS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def written(value: float, unit: Unit) -> str:
    """A figure as people read it: `3.2 h`, `81.4%`, `1.24 x`; a dash where there is none."""
    if math.isnan(value):
        return "-"
    if unit is Unit.SECONDS:
        return seconds(value)
    if unit is Unit.SHARE:
        return f"{value:.2%}" if 0.99 <= value < 1 or abs(value) < 0.01 else f"{value:.1%}"
    if unit is Unit.RATIO:
        return f"{value:.2f} x"
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def seconds(value: float) -> str:
    """Seconds in the unit in which they are easiest to read."""
    size, name = next((step for step in _STEPS if abs(value) >= step[0]), _STEPS[-1])
    digits = 0 if abs(value) / size >= 100 or name == "s" else 1
    return f"{value / size:.{digits}f} {name}"
