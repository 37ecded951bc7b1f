"""What the state machines of placed work have in common: the next version of a record, and why it is the next."""

from collections.abc import Mapping
from typing import Any

from helios.control import status
from helios.scheduler import Wait
from helios.store import Event, EventType, Record, timestamp


class Machine:
    """One record being moved: as it will be saved, with the events that say how it got there."""

    def __init__(self, record: Record, now: float) -> None:
        self.record = record
        self.now = now
        self.events: list[Event] = []

    @property
    def placed(self) -> bool:
        """Whether it holds resources on a cell."""
        return status.placement(self.record) is not None

    @property
    def stopping(self) -> Mapping[str, Any] | None:
        """Why the launch is being stopped: `reason`, `message`, and `grace` in seconds; None where it is not."""
        found: Mapping[str, Any] | None = self.record.status.get("stop")
        return found

    def wait(self, decision: Wait) -> None:
        """Say why it is still in the queue, where the reason is another one.

        The message is of that moment: numbers in it move with every cycle, and ten thousand jobs that wait must not
        be written for that. `explain` has the present ones.
        """
        if self.record.status.get("reason") != decision.reason:
            self._event(decision.reason, decision.message)
            self.record = self.record.with_status(reason=str(decision.reason), message=decision.message)

    def promise(self, cell: str, *, within_s: float) -> None:
        """Remember that others were told to leave that cell for it, and will have within so many seconds."""
        self.record = self.record.with_status(promised={"cell": cell, "until": timestamp(self.now + within_s)})

    def stop(self, reason: str, message: str, *, grace_s: float = status.DEFAULT_GRACE_S) -> None:
        """Ask the cell to stop the launch, `grace_s` seconds after its notice; the first reason stays."""
        if self.stopping is None:
            stop = self._stop(reason, message, grace_s)
            self.record = self.record.with_status(stop=stop, message=message)
            self._event("Stopping", f"{reason}: {message}")

    def hurry(self, message: str) -> None:
        """Let a stop that is under way wait no longer: nothing that its grace is for can come of it."""
        if self.stopping is not None and self.stopping["grace"] > 0:
            self.record = self.record.with_status(stop={**self.stopping, "grace": 0.0}, message=message)
            self._event("GraceCut", message, warning=True)

    def _stop(self, reason: str, message: str, grace_s: float) -> dict[str, Any]:
        """`status.stop` of a stop that is asked for now."""
        return {"reason": reason, "message": message, "grace": grace_s, "at": timestamp(self.now)}

    def _event(self, reason: str, message: str, *, warning: bool = False) -> None:
        kind = EventType.WARNING if warning else EventType.NORMAL
        self.events.append(Event(self.record.kind, self.record.name, self.record.uid, str(reason), message, kind))
