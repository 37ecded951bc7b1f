"""Controllers: observe -> diff -> reconcile, one per kind, over the records of one store.

    plane = ControlPlane(store, clock, tracker=None)       also makes tenant `default` where it is not there
    plane.store, plane.gateway: CellGateway                what the API and an agent talk to
    plane.tick() -> None                                   one deterministic pass of all controllers and the scheduler
    plane.run(stop_event)                                  ticks on every change, and once a second; returns when set
    plane.explain(name, kind="Job") -> dict                state, reason, cells, unblock, queue position (JSON)

    apply(store, document, idempotency_key="") -> Applied  admission, then the store: the way every document goes in
    admission.check(document, store) -> None               raises SpecError, NotFoundError, ConflictError
    request_cancel(store, kind, name) -> Record            Job or Curriculum; nothing where it is over
    request_rerun(store, name, kind="Curriculum", from_failed=True) -> Record
    request_redeploy(store, name) -> Record                Service: the same spec again (it follows the model's alias)
    request_delete(store, kind, name) -> Record            cancels, and removes when the work is over

    gateway.desired(cell) -> Desired(launches: tuple[Launch, ...], stops: tuple[Stop, ...])
    gateway.wait(cell, known: Desired, timeout) -> Desired returns when it differs from `known`
    gateway.report(cell, nodes: Sequence[NodeObservation] | None, statuses: Sequence[LaunchStatus])

The agent's loop: `start` every launch and `stop` every stop of `desired` (both idempotent), then report the status of
all of them, every time: a report is level, not change. `nodes=None` says that the agent is there and the engine is not.
A cell's reports arrive in the order it made them; they may be lost or come twice. `Absent` of a launch that was seen
alive has it stopped, and only a second answer lets the next epoch start; a start that leaves no trace for a minute is
made again under the next epoch.
"""

from helios.control import admission
from helios.control.admission import apply
from helios.control.gateway import CellGateway
from helios.control.plane import ControlPlane
from helios.control.requests import (
    request_cancel,
    request_cordon,
    request_delete,
    request_drain,
    request_preempt,
    request_redeploy,
    request_rerun,
    request_uncordon,
)
from helios.ports import Desired, Stop

__all__ = [
    "CellGateway",
    "ControlPlane",
    "Desired",
    "Stop",
    "admission",
    "apply",
    "request_cancel",
    "request_cordon",
    "request_delete",
    "request_drain",
    "request_preempt",
    "request_redeploy",
    "request_rerun",
    "request_uncordon",
]
