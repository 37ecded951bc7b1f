"""The service controller: a gang of replicas that stays up, replaced in place under a new epoch.

Pending (in the queue) -> Deploying -> Ready; Failed, and Deploying again where a new start can help
"""

from enum import StrEnum
from typing import Any

from helios import lifecycle
from helios.control import headroom, status
from helios.control.job import Surroundings
from helios.control.machine import Machine
from helios.ports import LaunchStatus, Phase
from helios.scheduler import Admit, Request
from helios.spec import ServiceSpec
from helios.store import Record, seconds, timestamp

FIRST_DELAY_S = 10.0
LONGEST_DELAY_S = 300.0


class ServiceState(StrEnum):
    PENDING = "Pending"
    DEPLOYING = "Deploying"
    READY = "Ready"
    FAILED = "Failed"


class ServiceMachine(Machine):
    """The life of a service: named transitions, each with its reason."""

    @property
    def state(self) -> ServiceState:
        return ServiceState(self.record.state)

    @property
    def outdated(self) -> bool:
        """Whether another spec, or the same once more, is to be deployed."""
        asked = bool(self.record.status.get("redeployRequested"))
        return asked or self.record.status.get("deployedGeneration") != self.record.generation

    def admit(self, decision: Admit, request: Request) -> None:
        """Write the intent: where, and under which epoch. Nothing starts before this is saved."""
        message = f"{decision.reason} of cell {decision.cell}"
        self._deploy("Admitted", message, placement=status.placement_of(decision, request))

    def redeploy(self, reason: str, message: str, **fields: Any) -> None:
        """Replace the launch where it is: a higher epoch on the same resources."""
        self._deploy(reason, message, **fields)

    def starting(self) -> None:
        self.record = self.record.with_status(seenEpoch=status.epoch(self.record))

    def ready(self, url: str) -> None:
        if self.state is ServiceState.READY and self.record.status.get("url") == url:
            return
        self._move(ServiceState.READY, "Ready", f"answers at {url}", url=url, failures=None, retryAt=None)
        self.starting()

    def fail(self, reason: str, message: str) -> None:
        """The launch failed; it is tried again after a delay, unless its reason says that this cannot help."""
        if reason in lifecycle.NEVER_RETRIED:
            self._move(ServiceState.FAILED, reason, message, warning=True, placement=None, url=None)
            return
        failures = int(self.record.status.get("failures", 0))
        was_ready = self.state is ServiceState.READY
        delay = 0.0 if was_ready else min(FIRST_DELAY_S * 2**failures, LONGEST_DELAY_S)
        due = timestamp(self.now + delay)
        self._move(ServiceState.FAILED, reason, message, warning=True, url=None, failures=failures + 1, retryAt=due)

    def release(self) -> None:
        """The launch is over: its resources are free, and the queue is where it goes on, if it does."""
        self._move(ServiceState.PENDING, "Stopped", "stopped", placement=None, stop=None, url=None, retryAt=None)

    def idle(self, reason: str, message: str) -> None:
        if self.record.status.get("reason") != reason:
            self._move(ServiceState.PENDING, reason, message)

    def _deploy(self, reason: str, message: str, **fields: Any) -> None:
        epoch = status.epoch(self.record) + 1
        fields |= {"epoch": epoch, "deployedGeneration": self.record.generation, "redeployRequested": None}
        self._move(ServiceState.DEPLOYING, reason, f"{message}, epoch {epoch}", url=None, retryAt=None, **fields)

    def _move(self, to: ServiceState, reason: str, message: str, *, warning: bool = False, **fields: Any) -> None:
        self.record = self.record.with_status(state=str(to), reason=reason, message=message, **fields)
        self._event(reason, f"{to}: {message}", warning=warning)


def observe(machine: ServiceMachine, seen: LaunchStatus) -> None:
    """Take in what a cell says of the launch of this service under its present epoch."""
    if not machine.placed or seen.epoch != status.epoch(machine.record):
        return
    if seen.phase is Phase.RUNNING and machine.record.spec.get("headroom"):
        machine.record = headroom.heard(machine.record, seen.progress)
    if machine.stopping:
        gone = seen.phase is Phase.ABSENT and seen.stopping
        if gone or seen.phase in {Phase.STOPPED, Phase.FAILED, Phase.SUCCEEDED}:
            machine.release()
    elif seen.phase is Phase.RUNNING and seen.outputs.get("url"):
        machine.ready(seen.outputs["url"])
    elif seen.phase in {Phase.STARTING, Phase.RUNNING}:
        machine.starting()
    elif seen.phase is not Phase.UNKNOWN and machine.state is not ServiceState.FAILED:
        _gone(machine, seen)


def _gone(machine: ServiceMachine, seen: LaunchStatus) -> None:
    started = machine.record.status.get("seenEpoch") == seen.epoch
    if seen.phase is not Phase.ABSENT:
        machine.fail(seen.reason or str(seen.phase), seen.message or "the application ended")
    elif started:
        machine.redeploy("EngineLost", "its cell does not know it any more")


def reconcile(machine: ServiceMachine, spec: ServiceSpec, around: Surroundings) -> None:
    """Move what no cell needs to say anything for: deletion, another spec, a redeploy, a retry that is due."""
    record = machine.record = headroom.looked_at(machine.record, spec, machine.now)
    if machine.placed and around.forsaken:
        machine.release()
        return
    if machine.stopping:
        return
    if machine.placed and around.reachable and (away := around.lost or around.draining):
        lost = bool(around.lost)
        reason, what = (lifecycle.NODE_LOST, "is lost") if lost else (lifecycle.DRAINED, "is being drained")
        machine.stop(reason, f"node {min(away)} {what}", grace_s=0.0 if lost else status.DEFAULT_GRACE_S)
        return
    if record.deleting or spec.replicas == 0:
        if machine.placed:
            machine.stop("Deleted" if record.deleting else "ScaledToZero", "is being stopped")
        elif not record.deleting:
            machine.idle("ScaledToZero", "spec.replicas is 0")
    elif machine.placed:
        _reconcile_placed(machine, spec)
    elif machine.state is ServiceState.FAILED and machine.outdated:
        machine.release()


def _reconcile_placed(machine: ServiceMachine, spec: ServiceSpec) -> None:
    if machine.outdated:
        if _same_place(machine.record, spec):
            machine.redeploy("Redeploy", "replaced in place")
        else:
            machine.stop("Reshape", "the new spec needs other resources: stops, then goes through the queue")
    elif machine.state is ServiceState.FAILED and machine.now >= seconds(machine.record.status["retryAt"]):
        machine.redeploy("Retry", "tried again")


def next_due(record: Record) -> float | None:
    """When a failed launch is to be tried again, or another forecast holds; seconds since the epoch."""
    retry, hour = record.status.get("retryAt"), headroom.next_due(record)
    return min((due for due in (seconds(retry) if retry else None, hour) if due is not None), default=None)


def _same_place(record: Record, spec: ServiceSpec) -> bool:
    place = record.status["placement"]
    cells = spec.placement.cells
    same_cell = not cells or place["cell"] in cells
    return same_cell and place["workers"] == spec.replicas and status.held(record) in status.requests_of(spec.resources)
