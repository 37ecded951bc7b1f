"""How far work got: computed from when it began and how fast it goes, never by steps.

Work is counted in seconds at a job's largest number of workers on devices of speed 1. While a gang works it goes
through rounds: `every` of work, then `cost_s` seconds in which it writes a checkpoint and nothing else.
"""

import math
from dataclasses import dataclass

_SLACK = 1e-9
"""Relative size of what is rounding: a last round that is shorter is none."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A gang's work at one moment.

    Attributes:
        done: work since it began here.
        kept: that of it which a checkpoint keeps.
        worked_s: seconds in which it worked.
        unsaved_s: those of them since its last checkpoint.
        saved_at: when the last checkpoint of this stay was written; None where none was.
    """

    done: float
    kept: float
    worked_s: float
    unsaved_s: float
    saved_at: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """Work that goes on undisturbed.

    Attributes:
        since: when it began.
        rate: work a second, above 0.
        work: what is left to do; infinite for what never ends by itself.
        every: work between two checkpoints; infinite where none are written.
        cost_s: seconds that one takes.
    """

    since: float
    rate: float
    work: float
    every: float = math.inf
    cost_s: float = 0.0

    @property
    def ends_at(self) -> float:
        """When the work is done: no checkpoint is written at the very end."""
        return self.since + self.work / self.rate + checkpoints(self.work, self.every) * self.cost_s

    @property
    def round_s(self) -> float:
        return self.every / self.rate + self.cost_s

    def at(self, now: float) -> Reading:
        """How far it is."""
        passed = max(0.0, now - self.since)
        if self.every == math.inf:
            return Reading(min(passed * self.rate, self.work), 0.0, passed, passed, None)
        rounds = math.floor(passed / self.round_s * (1 + _SLACK))
        begun_s = min(max(0.0, passed - rounds * self.round_s), self.every / self.rate)
        kept = rounds * self.every
        saved_at = self.since + rounds * self.round_s if rounds else None
        done = min(kept + begun_s * self.rate, self.work)
        return Reading(done, min(kept, done), rounds * self.every / self.rate + begun_s, begun_s, saved_at)

    def next_save(self, now: float) -> float:
        """When the first checkpoint after that moment will have been written; infinite where none will be."""
        if self.every == math.inf:
            return math.inf
        rounds = math.floor(max(0.0, now - self.since) / self.round_s * (1 + _SLACK)) + 1
        return self.since + rounds * self.round_s if rounds * self.every < self.work else math.inf


def checkpoints(work: float, every: float) -> int:
    """How many are written on the way through so much work."""
    if every == math.inf or work <= 0 or work == math.inf:
        return 0
    return max(0, math.ceil(work / every * (1 - _SLACK)) - 1)


def rate(*, workers: int, most: int, exponent: float, speed: float, spanned: int, penalty: float) -> float:
    """Work a second of `workers` of at most `most`, spread over more than one of `spanned` kinds of domain."""
    return float(speed * (workers / most) ** exponent * (1 - penalty) ** spanned)
