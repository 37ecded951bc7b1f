"""The queue as lines: gangs that are alike in all that a decision depends on, so that one look answers for all."""

import math
from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter

from helios.scheduler.snapshot import NO_END, PendingGang, Request
from helios.spec import CapacityType, QoS

_SHORTEST = 64.0
"""Seconds; estimates below are alike."""
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
    """A bucket an octave; its upper edge, so that nothing is taken to be shorter than it was said to be."""
    if estimate is None or estimate == NO_END:
        return estimate
    return float(2 ** math.ceil(math.log2(max(estimate, _SHORTEST))))


Line = tuple[PendingGang, ...]
"""Gangs of one tenant, priority and shape, by age."""
Queued = Mapping[Shape, Mapping[tuple[str, int], Line]]
"""All lines: by shape, and of a shape by tenant and priority."""


class Lines:
    """The queue, kept up gang by gang."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[Shape, tuple[str, int]]] = {}
        self._lines: dict[Shape, dict[tuple[str, int], list[PendingGang]]] = {}
        self._shapes: dict[Shape, Shape] = {}
        self._shown: dict[Shape, Mapping[tuple[str, int], Line]] = {}

    def put(self, gang: PendingGang) -> None:
        """Stand in line; whatever was known of the uid is replaced."""
        self.drop(gang.uid)
        shape = shape_of(gang)
        shape = self._shapes.setdefault(shape, shape)  # one object for equals: they are compared by identity first
        holder = (gang.tenant, gang.priority)
        self._of[gang.uid] = (shape, holder)
        insort(self._lines.setdefault(shape, {}).setdefault(holder, []), gang, key=_AGE)
        self._shown.pop(shape, None)

    def drop(self, uid: str) -> None:
        """Leave the line; nothing happens where it stood in none."""
        place = self._of.pop(uid, None)
        if place is None:
            return
        shape, holder = place
        lines = self._lines[shape]
        lines[holder] = [gang for gang in lines[holder] if gang.uid != uid]
        if not lines[holder]:
            del lines[holder]
        if not lines:
            del self._lines[shape], self._shapes[shape]
        self._shown.pop(shape, None)

    def frozen(self) -> Queued:
        """The lines as they are now; shares with the answer before what did not change."""
        for shape in self._lines.keys() - self._shown.keys():
            self._shown[shape] = {holder: tuple(line) for holder, line in self._lines[shape].items()}
        return self._shown.copy()


def queued(pending: Iterable[PendingGang]) -> Queued:
    """The lines of a queue."""
    lines = Lines()
    for gang in pending:
        lines.put(gang)
    return lines.frozen()
