"""What a fleet must not have done, whatever was done to it: pure functions over what store and cells recorded.

The control plane's opinion of itself is compared with what the cells recorded of their own doing; where the two differ
it is the control plane that is wrong.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from helios.adapters.simulated import History, Span
from helios.ports import Phase
from helios.store import Allocation, Event, Record

TERMINAL = frozenset({"Succeeded", "Failed", "Cancelled"})
STATES = TERMINAL | {"Queued", "Admitted", "Starting", "Running", "Preempting", "Recovering"}
TOLERANCE_S = 0.001
"""Times are sums of floats."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must not have happened, to the job or cell of that name."""

    rule: str
    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is known once all is quiet.

    Attributes:
        accepted: uid by name, of every job that the API answered a 2xx for.
        records: all jobs of the store.
        events: the whole event log, in order.
        histories: of every cell, by its own record.
        allocations: every row of the accounting.
    """

    accepted: Mapping[str, str]
    records: Sequence[Record]
    events: Sequence[Event]
    histories: Sequence[History]
    allocations: Sequence[Allocation]

    def spans(self) -> dict[str, list[Span]]:
        """What held resources anywhere, by uid, in the order of its beginning."""
        found: dict[str, list[Span]] = defaultdict(list)
        for history in self.histories:
            for span in history.spans:
                if span.until > span.since:
                    found[span.uid].append(span)
        return {uid: sorted(spans, key=lambda span: span.since) for uid, spans in found.items()}

    def ends(self) -> dict[str, list[Event]]:
        """The events by which jobs ended, by uid."""
        found: dict[str, list[Event]] = defaultdict(list)
        for event in self.events:
            if event.kind == "Job" and entered(event) in TERMINAL:
                found[event.uid].append(event)
        return found


def check(facts: Facts) -> tuple[Finding, ...]:
    """Every rule that was broken, by rule."""
    rules = (lost, twice_at_once, run_again, wrong_end, leaked, unintended, out_of_order, asked_for, defects)
    return tuple(finding for rule in rules for finding in rule(facts))


def entered(event: Event) -> str:
    """The state that a job entered with this event, or empty."""
    state = event.message.partition(":")[0]
    return state if state in STATES and event.reason != "Stopping" else ""


def lost(facts: Facts) -> Iterator[Finding]:
    """Accepted, and gone, or not at an end when everything had its time to end."""
    records = {record.name: record for record in facts.records}
    for name, uid in facts.accepted.items():
        record = records.get(name)
        if record is None:
            yield Finding("Lost", name, "the API accepted it, and the store does not have it")
        elif record.uid != uid:
            yield Finding("Lost", name, f"the API accepted it as {uid}, and the store has {record.uid}")
        elif record.state not in TERMINAL:
            yield Finding("Lost", name, f"it is still {record.state}: {record.status.get('message', '')}")


def twice_at_once(facts: Facts) -> Iterator[Finding]:
    """Two starts of one job at the same time, in whatever cells."""
    for spans in facts.spans().values():
        latest = spans[0]
        for span in spans[1:]:
            if span.since < latest.until - TOLERANCE_S:
                both = f"epoch {latest.epoch} in {latest.cell} and epoch {span.epoch} in {span.cell}"
                yield Finding(
                    "TwiceAtOnce", span.name, f"{both} for {min(latest.until, span.until) - span.since:.3f} s"
                )
            latest = max(latest, span, key=lambda one: one.until)


def run_again(facts: Facts) -> Iterator[Finding]:
    """Started after it had succeeded in a cell, or after the store had it ended; or ended twice."""
    ends, records = facts.ends(), {record.uid: record for record in facts.records}
    for uid, spans in facts.spans().items():
        over = [span.until for span in spans if span.phase is Phase.SUCCEEDED]
        told = [event.time for event in ends.get(uid, ())]
        for span in spans:
            if any(span.since >= moment - TOLERANCE_S for moment in over + told):
                yield Finding("RunAgain", span.name, f"epoch {span.epoch} began in {span.cell} after its end")
    for uid, events in ends.items():
        if len(events) > 1 and uid in records:
            words = ", ".join(event.message.partition(":")[0] for event in events)
            yield Finding("RunAgain", events[0].name, f"it ended {len(events)} times: {words}")


def wrong_end(facts: Facts) -> Iterator[Finding]:
    """The store says that it succeeded and no cell does, or the other way round."""
    spans = facts.spans()
    for record in facts.records:
        succeeded = any(span.phase is Phase.SUCCEEDED for span in spans.get(record.uid, ()))
        if record.state in TERMINAL and succeeded != (record.state == "Succeeded"):
            word = "a cell" if succeeded else "no cell"
            yield Finding("WrongEnd", record.name, f"the store says {record.state}; {word} says that it succeeded")


def leaked(facts: Facts) -> Iterator[Finding]:
    """Held by what is over: a placement, a row of the accounting, a gang in a cell."""
    over = {record.uid for record in facts.records if record.state in TERMINAL}
    known = {record.uid for record in facts.records}
    for record in facts.records:
        if record.uid in over and record.status.get("placement") and not record.status.get("released"):
            yield Finding("Leaked", record.name, f"it is {record.state} and holds its placement")
    for row in facts.allocations:
        if row.closed_at is None and (row.uid in over or row.uid not in known):
            yield Finding("Leaked", row.name, f"its allocation of epoch {row.epoch} in {row.cell} is open")
    for spans in facts.spans().values():
        for span in spans:
            if span.alive and span.uid not in known - over:
                yield Finding("Leaked", span.name, f"epoch {span.epoch} lives in {span.cell}, and nobody wants it")


def unintended(facts: Facts) -> Iterator[Finding]:
    """A gang that held nodes while the store did not mean it to: before its admission, or after its release."""
    rows = {(row.uid, row.epoch): row for row in facts.allocations}
    for spans in facts.spans().values():
        for span in spans:
            row, where = rows.get((span.uid, span.epoch)), f"epoch {span.epoch} in {span.cell}"
            if row is None or row.opened_at > span.since + TOLERANCE_S:
                yield Finding("Unintended", span.name, f"{where} began before the store had it admitted")
            elif row.closed_at is not None and row.closed_at < span.until - TOLERANCE_S:
                early = span.until - row.closed_at
                yield Finding("Unintended", span.name, f"{where} held its nodes {early:.3f} s beyond its allocation")


def out_of_order(facts: Facts) -> Iterator[Finding]:
    """A later start with an epoch that is not higher: a fence that did not hold."""
    for spans in facts.spans().values():
        for earlier, later in pairwise(spans):
            if later.epoch <= earlier.epoch:
                message = f"epoch {later.epoch} in {later.cell} after epoch {earlier.epoch} in {earlier.cell}"
                yield Finding("OutOfOrder", later.name, message)


def asked_for(facts: Facts) -> Iterator[Finding]:
    """What the cells themselves recorded: overcommitted nodes, two epochs, starts after a success."""
    for history in facts.histories:
        for violation in history.violations:
            yield Finding(violation.rule, history.cell, f"{violation.uid} epoch {violation.epoch}: {violation.message}")


def defects(facts: Facts) -> Iterator[Finding]:
    """A controller that could not do its work, whatever it was."""
    for event in facts.events:
        if event.reason == "ControllerError":
            yield Finding("ControllerError", event.name, event.message)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that was done to the fleet.

    Attributes:
        at: when it was done; seconds since the epoch.
        target: of whom (`server-1`, `agents-2`, `database`).
        leader: it took the leader away.
        alone: no other replica was ready to lead.
        control: it disturbed whoever leads, or could lead next.
    """

    at: float
    kind: str
    target: str
    leader: bool = False
    alone: bool = False
    control: bool = False


@dataclass(frozen=True, slots=True)
class Failovers:
    """Seconds from each loss of a leader to the next decision about a job.

    Attributes:
        standby: where another replica was ready to lead.
        alone: where none was, so that a program had to be started first.
        spoiled: losses after which the control plane was disturbed again before that decision.
    """

    standby: tuple[float, ...]
    alone: tuple[float, ...]
    spoiled: int


def failovers(faults: Iterable[Fault], events: Iterable[Event]) -> Failovers:
    """Time each loss; a decision is a transition of a job in the event log, which only who leads can make."""
    decided = sorted(event.time for event in events if event.kind == "Job" and entered(event))
    disturbed = sorted((fault for fault in faults if fault.control), key=lambda fault: fault.at)
    times: dict[bool, list[float]] = {False: [], True: []}
    spoiled = 0
    for index, fault in enumerate(disturbed):
        if not fault.leader:
            continue
        after = next((moment for moment in decided if moment > fault.at), None)
        following = disturbed[index + 1].at if index + 1 < len(disturbed) else float("inf")
        if after is None or after > following:
            spoiled += 1
        else:
            times[fault.alone].append(after - fault.at)
    return Failovers(tuple(times[False]), tuple(times[True]), spoiled)
