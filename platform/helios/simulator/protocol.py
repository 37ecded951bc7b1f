"""What a policy is to the simulator: a pure decision, and ears for what it wants to learn from."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from helios.scheduler import Admit, Change, Snapshot
from helios.simulator.jobs import TraceJob


class Decided(Protocol):
    """What one cycle says; `helios.scheduler.Cycle` is one."""

    @property
    def admits(self) -> Sequence[Admit]: ...

    @property
    def changes(self) -> Sequence[Change]: ...

    @property
    def next_look(self) -> float | None:
        """When time alone may change the decision, on the clock of `Snapshot.now`; None: never."""
        ...


class Scheduler(Protocol):
    """Anything that places gangs. The same one must not be used for two runs, where it keeps anything."""

    @property
    def name(self) -> str: ...

    def decide(self, snapshot: Snapshot) -> Decided:
        """Whom to admit, stop and resize now. Nothing but the snapshot says what is there."""
        ...


@runtime_checkable
class HearsStarts(Protocol):
    def started(self, job: TraceJob, now: float) -> None:
        """The job was given a place."""
        ...


@runtime_checkable
class HearsStops(Protocol):
    def stopped(self, job: TraceJob, now: float, held: float, done: float) -> None:
        """The job left its place and waits again.

        Args:
            held: device-seconds that it has held so far.
            done: seconds of its work that are safe, at its largest number of workers.
        """
        ...


@runtime_checkable
class HearsEnds(Protocol):
    def ended(self, job: TraceJob, now: float) -> None:
        """The job succeeded, or failed for good."""
        ...
