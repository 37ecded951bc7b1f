"""Which weeks of a trace a run may draw from, and which seconds of the run are measured."""

from dataclasses import dataclass
from enum import StrEnum

from helios.errors import InputError
from helios.simulator.traces.trace import DAY_S, WEEK_S, Trace


class Phase(StrEnum):
    """What a run is for, and so which weeks it may see. `WHOLE` mixes both: for timings, never for a result."""

    TUNING = "tuning"
    REPORT = "report"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Split:
    """The first weeks of a trace are for tuning; the rest is for what is reported, once everything is frozen."""

    tuning_weeks: int = 3

    def weeks(self, trace: Trace, phase: Phase) -> range:
        """Weeks of the trace, counted from 0.

        Raises:
            InputError: the trace is too short to be split.
        """
        if trace.weeks <= self.tuning_weeks:
            message = f"{trace.file or trace.name} has {trace.weeks} whole weeks: {self.tuning_weeks} are for tuning"
            raise InputError(f"{message}, and none is left to report", hint="replay it as it was recorded instead")
        first = self.tuning_weeks if phase is Phase.REPORT else 0
        return range(first, self.tuning_weeks if phase is Phase.TUNING else trace.weeks)


@dataclass(frozen=True, slots=True)
class Window:
    """The course of one run. Jobs are submitted throughout; those of `span` are measured.

    Attributes:
        phase: whose weeks are drawn from.
        warm_up_s: seconds before, in which queues settle. Work that began before the run is there from second 0.
        measured_s: seconds whose submissions are measured.
        tail_s: seconds after, in which others go on to be submitted while measured jobs finish.
    """

    phase: Phase = Phase.REPORT
    warm_up_s: float = 2 * DAY_S
    measured_s: float = WEEK_S
    tail_s: float = 3 * DAY_S

    def __post_init__(self) -> None:
        if not (self.warm_up_s >= 0 and self.measured_s > 0 and self.tail_s >= 0):
            raise InputError(f"expected a window of 0 s or more, with more than 0 s measured, got {self}")

    @property
    def span(self) -> tuple[float, float]:
        """First and last measured second."""
        return self.warm_up_s, self.warm_up_s + self.measured_s

    @property
    def horizon_s(self) -> float:
        return self.warm_up_s + self.measured_s + self.tail_s
