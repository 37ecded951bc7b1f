"""The queue as lines: gangs that are alike in all that a decision depends on, so that one look answers for all."""

import math
from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter

from helios.scheduler.snapshot import NO_END, PendingGang, Request
from helios.spec import CapacityType, QoS

_AGE = attrgetter("submitted_at", "uid")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a place must have.

    Attributes:
        estimate: upper edge of the bucket that the gang's estimate falls in, seconds; None where nothing is known.
    """

    qos: QoS
    request: Request
    min_workers: int
    max_workers: int
    cells: tuple[str, ...]
    held_off: tuple[str, ...]
    alternatives: tuple[Request, ...]
    capacity_types: tuple[CapacityType, ...]
    data: tuple[tuple[str, float], ...]
    estimate: float | None
    checkpointed: float
    home: str
    recovering: bool
    spread: str
    digest: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """A shape is looked up some ten thousand times a cycle: its hash is found once."""
        parts = tuple(getattr(self, each.name) for each in fields(self) if each.init)
        object.__setattr__(self, "digest", hash(parts))

    def __hash__(self) -> int:
        return self.digest

    @property
    def requests(self) -> tuple[Request, ...]:
        """What a worker may be given, in order of preference."""
        return (self.request, *self.alternatives)

    @property
    def devices(self) -> float:
        """Devices of the whole gang at its smallest."""
        return self.min_workers * self.request.devices


def shape_of(gang: PendingGang) -> Shape:
    """The shape of a gang."""
    return Shape(
        gang.qos,
        gang.request,
        gang.min_workers,
        gang.max_workers,
        gang.cells,
        tuple(name for name, _ in gang.held_off),
        gang.alternatives,
        gang.capacity_types,
        gang.data,
        _bucket(gang.estimate),
        gang.checkpointed,
        gang.home,
        gang.recovering,
        gang.spread,
    )


def _bucket(estimate: float | None) -> float | None:
    """Two buckets an octave; the upper edge, so that nothing is taken to be shorter than it was said to be."""
    if estimate is None or estimate == NO_END:
        return estimate
    return float(2 ** (math.ceil(2 * math.log2(max(estimate, 1.0))) / 2))


LineKey = tuple[str, int, Shape]
"""Tenant, priority, shape."""


def line_of(gang: PendingGang) -> LineKey:
    """The line that a gang stands in."""
    return (gang.tenant, gang.priority, shape_of(gang))


@dataclass(slots=True)
class Lines:
    """All lines, each by age."""

    of: dict[str, LineKey] = field(default_factory=dict)
    lines: dict[LineKey, list[PendingGang]] = field(default_factory=dict)

    def put(self, gang: PendingGang) -> None:
        """Stand in line; whatever was known of the uid is replaced."""
        self.drop(gang.uid)
        key = self.of[gang.uid] = line_of(gang)
        insort(self.lines.setdefault(key, []), gang, key=_AGE)

    def drop(self, uid: str) -> None:
        """Leave the line; nothing happens where it stood in none."""
        key = self.of.pop(uid, None)
        if key is None:
            return
        line = self.lines[key]
        if len(line) == 1:
            del self.lines[key]
        else:
            self.lines[key] = [gang for gang in line if gang.uid != uid]

    def frozen(self) -> Mapping[LineKey, tuple[PendingGang, ...]]:
        """The lines as they are now."""
        return {key: tuple(line) for key, line in self.lines.items()}


def lines_of(pending: Iterable[PendingGang]) -> Mapping[LineKey, tuple[PendingGang, ...]]:
    """The lines of a queue."""
    lines: dict[LineKey, list[PendingGang]] = {}
    for gang in sorted(pending, key=_AGE):
        lines.setdefault(line_of(gang), []).append(gang)
    return {key: tuple(line) for key, line in lines.items()}
