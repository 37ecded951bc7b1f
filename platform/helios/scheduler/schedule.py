"""One scheduling cycle, on one page."""

from collections.abc import Collection, Mapping
from itertools import chain

from helios.scheduler.backfill import keep_headroom, reserve
from helios.scheduler.cell_stage import WIDTHS, Fit
from helios.scheduler.cycle import Cycle, allowance_of, allowed_by, beyond
from helios.scheduler.decisions import Admit, Change, Reservation, Wait
from helios.scheduler.defragmentation import defragment
from helios.scheduler.elastic import grow
from helios.scheduler.global_stage import choose, expected_end
from helios.scheduler.lines import Shape, shape_of
from helios.scheduler.plans import Plan
from helios.scheduler.policy import Policy
from helios.scheduler.preemption import Rooms
from helios.scheduler.promises import Promises, lapses, others, promised
from helios.scheduler.queue import Head, Left, Queue
from helios.scheduler.reclaiming import reclaim
from helios.scheduler.scratch import Scratch
from helios.scheduler.snapshot import NO_END, PendingGang, Request, RunningGang, Snapshot
from helios.spec import QoS

DEFAULT = Policy()
GAIN_HORIZON = 6 * 3600.0
"""Seconds of waiting that are counted at most."""
UNFORESEEN = 3600.0
"""Seconds of waiting that are counted where nothing says when a gang would start otherwise."""


def schedule(snapshot: Snapshot, policy: Policy = DEFAULT) -> Cycle:
    """Give places away, keep some for those that come first, and ask others to leave where that is worth it."""
    # 1. What is free, and what services will need soon.
    cycle = _Running(snapshot, policy)
    for headroom in snapshot.headroom:
        keep_headroom(headroom, cycle.scratch)
    # 2. The queue in its order, a line of equals at a time; of equals those first for whom others were told to leave.
    while head := cycle.next():
        # 3. May the tenant hold this much, of its own or borrowed?
        within = cycle.within(head.gang, head.shape)
        if not within:
            cycle.over_quota(head)
        elif cycle.is_blocked(head):
            cycle.refuse(head)
        # 4. Stage one finds the cell, stage two the nodes; what is given is gone for the next in line.
        elif (fit := choose(head.shape, cycle.scratch, within)) is not None:
            cycle.admit(head, fit)
        # 5. The first that have no place get one for later, which those behind them must not delay. Within a cycle
        #    free resources only shrink: what had no place has none, and nobody else of that shape is looked at.
        else:
            cycle.reserve(head, within)
    # 6. For some of those room is made, by stopping others or by moving them: one plan after the other, each tried out.
    cycle.make_room()
    # 7. What nobody waits for goes to gangs that can grow.
    cycle.grow()
    return cycle.result()


class _Running:
    """A cycle while it goes on."""

    def __init__(self, snapshot: Snapshot, policy: Policy) -> None:
        self.snapshot, self.policy = snapshot, policy
        self.scratch = Scratch(snapshot, policy)
        self.promised, self.promises, self.turn = promised(snapshot, policy), Promises(self.scratch), 0
        lines = others(self.scratch.sums.lines, [gang for _, gang in self.promised])
        self.queue = Queue(lines, snapshot, policy, self.scratch.quotas)
        for _, gang in self.promised:
            self.set_aside(gang)
        self.admits: list[Admit] = []
        self.changes: list[Change] = []
        self.reservations: list[Reservation] = []
        self.waiting: list[tuple[Shape, Left, Wait | None]] = []
        self.blocked: dict[str, PendingGang] = {}
        self.hopeful: list[tuple[Head, Left, Reservation | None, bool]] = []
        self.later = NO_END

    def within(self, gang: PendingGang, shape: Shape) -> dict[Request, int]:
        return allowed_by(gang, shape, self.scratch.quotas)

    def next(self) -> Head | None:
        """The gang whose turn it is, once those are served that go before it and for whom others were told to leave."""
        head = self.queue.next()
        while self.turn < len(self.promised):
            rank, gang = self.promised[self.turn]
            if head is not None and self.queue.rank(head.shape, head.gang) < rank:
                break
            self.keep_promise(Head(gang, shape_of(gang), urgent=False))
            head, self.turn = self.queue.next(), self.turn + 1
        return head

    def keep_promise(self, head: Head) -> None:
        """It starts where it can now; else the place is kept that others leave for it, and nobody else is stopped."""
        gang, shape = head.gang, head.shape
        self.set_aside(gang, sign=-1)
        within = self.within(gang, shape)
        fit = choose(shape, self.scratch, within) if within and not self.is_blocked(head) else None
        if fit is not None:
            self.enter(gang, shape, fit)
            return
        allowance, left = allowance_of(gang, shape.request, self.scratch.quotas), ((gang,),)
        self.waiting.append((shape, left, None if within else beyond(allowance, shape.devices)))
        lent = not within and allowance.own >= shape.devices
        kept = self.promises.keep(gang, shape, within or allowed_by(gang, shape, self.promises.quotas()))
        if kept is not None:
            self.reservations.append(kept)
        elif within or lent:
            self.hopeful.append((head, left, None, lent))

    def set_aside(self, gang: PendingGang, *, sign: int = 1) -> None:
        """What borrowers gave back for a gang is not lent again, to whoever comes before it, until its turn is over."""
        if gang.qos is not QoS.PREEMPTIBLE:
            devices = sign * gang.min_workers * gang.request.devices
            self.scratch.quotas.set_aside(gang.tenant, gang.request.accelerator, devices)

    def is_blocked(self, head: Head) -> bool:
        """Without backfill nobody passes one that waits for the same devices."""
        return not self.policy.backfill and head.shape.request.accelerator in self.blocked

    def admit(self, head: Head, fit: Fit) -> None:
        self.enter(head.gang, head.shape, fit)
        self.queue.served(head)

    def enter(self, gang: PendingGang, shape: Shape, fit: Fit) -> None:
        quotas = self.scratch.quotas
        kind = fit.request.accelerator
        before = quotas.borrowed(gang.tenant, kind)
        self.scratch.enter(_started(gang, fit, expected_end(shape, self.policy, self.snapshot.now)))
        borrowed = quotas.borrowed(gang.tenant, kind) - before
        reason = _reason(gang, fit, borrowed)
        self.admits.append(
            Admit(gang.uid, fit.cell, fit.nodes, len(fit.nodes), reason, fit.request, fit.devices, borrowed)
        )

    def over_quota(self, head: Head) -> None:
        allowance, needs = allowance_of(head.gang, head.shape.request, self.scratch.quotas), head.shape.devices
        left = self.queue.close_line(head)
        self.waiting.append((head.shape, left, beyond(allowance, needs)))
        if allowance.own >= needs:  # its own is lent out
            self.hopeful.append((head, (left[0][:1],), None, True))

    def refuse(self, head: Head) -> Left:
        """Nobody of the shape is looked at any more."""
        left = self.queue.close_shape(head)
        self.waiting.append((head.shape, left, None))
        return left

    def reserve(self, head: Head, within: Mapping[Request, int]) -> None:
        self.blocked.setdefault(head.shape.request.accelerator, head.gang)
        found = None
        if self.policy.backfill and len(self.hopeful) < self.policy.reservations:
            found = reserve(head.gang, head.shape, self.scratch, within)
            if found is not None:
                self.reservations.append(found)
        if len(within) == len(head.shape.requests):
            left = self.refuse(head)
        else:  # others may be allowed what it may not be given
            left = self.queue.close_line(head)
            self.waiting.append((head.shape, left, None))
        self.hopeful.append((head, left, found, False))

    def make_room(self) -> None:
        """For the first in the queue for which that is possible and worth it; one token, one gang."""
        policy, now, last = self.policy, self.snapshot.now, self.snapshot.last_preemption
        if not policy.preemption or (last is not None and now - last < policy.preemption_gap):
            return
        rooms, tokens = Rooms(self.scratch, self.promises), policy.preemption_tokens
        for head, left, reservation, lent in self.hopeful[: policy.preemption_tries]:
            soon = reservation is not None and reservation.at <= now + policy.leaving
            if soon or now - head.gang.submitted_at < policy.preempt_after.get(head.gang.qos, 0.0):
                continue
            wait = min(GAIN_HORIZON, reservation.at - now) if reservation else UNFORESEEN
            for gang in chain.from_iterable(left):
                allowed = {head.shape.request: head.shape.min_workers} if lent else self.within(gang, head.shape)
                if not allowed:
                    continue  # its tenant may not hold what would be made free
                plan = self._plan(gang, head.shape, rooms, allowed, lent=lent, wait=wait)
                if plan is None or not tokens:
                    break
                rooms.grant(plan, gang)
                if gang.qos is not QoS.PREEMPTIBLE:  # what it is about to get counts for those behind it
                    held = head.shape.min_workers * plan.fit.request.devices
                    self.scratch.quotas.take(gang.tenant, plan.fit.request.accelerator, held)
                self.changes += plan.changes(gang)
                tokens -= bool(plan.victims)
            if not tokens:
                return

    def _plan(
        self, gang: PendingGang, shape: Shape, rooms: Rooms, within: Collection[Request], *, lent: bool, wait: float
    ) -> Plan | None:
        """How room is made for the gang, where that loses less than its wait is worth."""
        policy = self.policy
        gain = shape.devices * wait * policy.urgency.get(gang.qos, 1.0)
        plan = reclaim(gang, shape, rooms, within) if lent else rooms.plan(gang, shape, within)
        if plan is not None and (plan.cost < gain or gang.qos in policy.at_any_cost):
            return plan
        self.later = min(self.later, rooms.later(gang, shape, within, lent=lent))
        if policy.defragmentation and not lent:
            return defragment(gang, shape, rooms, within, gain=gain)
        return None

    def grow(self) -> None:
        if self.policy.elastic:
            asked = frozenset(change.uid for change in self.changes)
            self.changes += grow(self.scratch, frozenset(self.blocked), asked)

    def result(self) -> Cycle:
        return Cycle(
            tuple(self.admits),
            tuple(self.changes),
            tuple(self.reservations),
            self._next_look(),
            tuple(self.waiting),
            self.scratch,
            frozenset(self.promises.kept),
        )

    def _next_look(self) -> float:
        """Patience that runs out, a cell that may be asked again, a foreseen end, a minimum run that is over."""
        now, policy, last = self.snapshot.now, self.policy, self.snapshot.last_preemption
        looks = [self.later, self.queue.next_urgent, *(reservation.at for reservation in self.reservations)]
        looks += [head.gang.submitted_at + policy.preempt_after.get(head.gang.qos, 0.0) for head, *_ in self.hopeful]
        looks += [lapses(gang, policy) for _, gang in self.promised]
        if self.hopeful and last is not None:
            looks.append(last + policy.preemption_gap)
        lines = (line for shape, left, _ in self.waiting if shape.held_off for line in left)
        looks += [until for line in lines for gang in line for _, until in gang.held_off]
        return min((look for look in looks if look > now), default=NO_END)


def _started(gang: PendingGang, fit: Fit, ends_at: float) -> RunningGang:
    return RunningGang(
        gang.uid,
        gang.tenant,
        fit.cell,
        fit.nodes,
        fit.request,
        fit.devices,
        gang.qos,
        gang.priority,
        ends_at=None if ends_at == NO_END else ends_at,
        spread=gang.spread,
    )


def _reason(gang: PendingGang, fit: Fit, borrowed: float) -> str:
    count, machines = len(fit.nodes), len(set(fit.nodes))
    wanted = f" of up to {gang.max_workers}" if count < gang.max_workers else ""
    workers = "1 worker" if count == 1 else f"{count} workers"
    where = "1 node" if machines == 1 else f"{machines} nodes"
    width = f" of one {WIDTHS[fit.width]}" if machines > 1 and 0 < fit.width < len(WIDTHS) - 1 else ""
    loan = f", {borrowed:g} {fit.request.accelerator} of it borrowed" if borrowed else ""
    return f"{workers}{wanted} on {where}{width}{loan}"
