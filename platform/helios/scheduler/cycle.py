"""What a cycle decided, and the words for those who wait: made when they are first asked for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain

from helios.scheduler.decisions import Admit, Change, Decision, Reservation, Wait, WaitReason
from helios.scheduler.lines import Shape
from helios.scheduler.queue import Left
from helios.scheduler.quota import Allowance, Quotas
from helios.scheduler.scratch import Scratch, needs_of
from helios.scheduler.snapshot import PendingGang, Request
from helios.scheduler.verdicts import nowhere


@dataclass(frozen=True)
class Cycle:
    """What a cycle decided.

    Attributes:
        admits: in the order in which they were given their places.
        changes: what running gangs are asked to do.
        reservations: places that are kept, with their expected times.
        next_look: when time alone changes what is decided; infinity where nothing will.
    """

    admits: tuple[Admit, ...]
    changes: tuple[Change, ...]
    reservations: tuple[Reservation, ...]
    next_look: float
    _waiting: tuple[tuple[Shape, Left, Wait | None], ...] = field(repr=False)
    _scratch: Scratch = field(repr=False, compare=False)
    _promised: frozenset[str] = field(default=frozenset(), repr=False)

    @cached_property
    def lines(self) -> tuple[tuple[tuple[PendingGang, ...], Wait], ...]:
        """Gangs that wait for the same reason, and that reason; its `uid` is empty. What is their own is left out."""
        words: dict[object, Wait] = {}
        found: list[tuple[tuple[PendingGang, ...], Wait]] = []
        for shape, left, known in self._waiting:
            gangs = tuple(chain.from_iterable(left))
            if known is not None:
                found.append((gangs, known))
                continue
            for allowed, some in _apart(gangs, shape, self._scratch.quotas).items():
                alike = (needs_of(shape), shape.min_workers, allowed)  # all that the words depend on
                if not allowed:  # quota would hold it back in any case
                    found += [(line, beyond_quota(line[0], shape, self._scratch.quotas)) for line in _by_tenant(some)]
                    continue
                if alike not in words:
                    words[alike] = nowhere("", shape, allowed, self._scratch)
                found.append((tuple(some), words[alike]))
        return tuple(found)

    @cached_property
    def own(self) -> Mapping[str, Wait]:
        """The decisions on gangs that wait with a reservation, or that room is being made for, by uid."""
        kept = {reservation.uid: reservation for reservation in self.reservations}
        helped = self._promised | {change.beneficiary for change in self.changes if change.beneficiary}
        return {
            gang.uid: _own(gang.uid, wait, kept.get(gang.uid), making_room=gang.uid in helped)
            for gangs, wait in self.lines
            for gang in gangs
            if gang.uid in kept or gang.uid in helped
        }

    @cached_property
    def waits(self) -> Mapping[str, Wait]:
        """The decision on each gang that waits, by uid. Put into words when it is first asked for."""
        waits = {gang.uid: replace(wait, uid=gang.uid) for gangs, wait in self.lines for gang in gangs}
        return {**waits, **self.own}

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """An admission or a wait for each gang of the queue."""
        return (*self.admits, *self.waits.values())

    def __iter__(self) -> Iterator[Decision]:
        return iter(self.decisions)

    def __len__(self) -> int:
        return len(self.admits) + sum(len(line) for _, left, _ in self._waiting for line in left)


def allowance_of(gang: PendingGang, request: Request, quotas: Quotas) -> Allowance:
    return quotas.allowance(gang.tenant, request.accelerator, gang.qos)


def allowed_by(gang: PendingGang, shape: Shape, quotas: Quotas) -> dict[Request, int]:
    """Of what a worker may be given: how many workers the quota allows, where that is enough for the gang."""
    allowed = ((request, allowance_of(gang, request, quotas).workers(request)) for request in shape.requests)
    return {request: int(min(n, shape.max_workers)) for request, n in allowed if n >= shape.min_workers}


def beyond(allowance: Allowance, needs: float) -> Wait:
    """The wait of those whose tenant may not hold so many devices more."""
    more = f"; this needs {needs:g} more" if allowance.nominal is not None else ""
    return Wait("", WaitReason.QUOTA_EXCEEDED, allowance.message + more)


def beyond_quota(gang: PendingGang, shape: Shape, quotas: Quotas) -> Wait:
    """The wait of a gang whose tenant may hold none of what it asks for."""
    return beyond(allowance_of(gang, shape.request, quotas), shape.devices)


def _apart(
    gangs: Sequence[PendingGang], shape: Shape, quotas: Quotas
) -> Mapping[tuple[Request, ...], Sequence[PendingGang]]:
    """Gangs by what their tenants' quotas allow a worker to be given."""
    tenants: dict[str, tuple[Request, ...]] = {}
    found: dict[tuple[Request, ...], list[PendingGang]] = {}
    for gang in gangs:
        if gang.tenant not in tenants:
            tenants[gang.tenant] = tuple(allowed_by(gang, shape, quotas))
        found.setdefault(tenants[gang.tenant], []).append(gang)
    return found


def _by_tenant(gangs: Sequence[PendingGang]) -> Sequence[tuple[PendingGang, ...]]:
    found: dict[str, list[PendingGang]] = {}
    for gang in gangs:
        found.setdefault(gang.tenant, []).append(gang)
    return [tuple(some) for some in found.values()]


def _own(uid: str, wait: Wait, reservation: Reservation | None, *, making_room: bool) -> Wait:
    if making_room:
        message = "others were told to leave, and their place is kept for it"
        return Wait(uid, WaitReason.MAKING_ROOM, message, wait.cells, reservation)
    return Wait(uid, wait.reason, wait.message, wait.cells, reservation)
