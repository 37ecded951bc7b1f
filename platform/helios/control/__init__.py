"""Controllers: observe -> diff -> reconcile, one per kind, over the records of one store.

    plane = ControlPlane(store, clock, tracker=None, mirror=None)   also makes tenant `default` where it is not there
    plane.store, plane.mirror, plane.gateway: CellGateway  what the API and agents talk to, on every replica
    plane.campaign(stop, holder=..., address=...)          runs the controllers whenever this replica is elected
    plane.run(stop)                                        runs them without an election: the only one there is
    plane.tick() -> None                                   one deterministic pass of all controllers and the scheduler
    plane.explain(name, kind="Job"), plane.preview(document), plane.queue(), plane.leader() -> JSON

    apply(store, document, idempotency_key="") -> Applied  admission, then the store: the way every document goes in
    admission.check(document, look, known) -> Record | None    raises SpecError, NotFoundError, ConflictError
    request_cancel(store, kind, name) -> Record            Job or Curriculum; nothing where it is over
    request_rerun(store, name, kind="Curriculum", from_failed=True) -> Record
    request_preempt(store, name, reason="") -> Record      Job: back to the queue, with its grace
    request_redeploy(store, name) -> Record                Service: the same spec again (it follows the model's alias)
    request_delete(store, kind, name) -> Record            cancels, and removes when the work is over
    request_cordon, request_drain, request_uncordon(store, cell, node="", reason="") -> Record

    gateway.desired(cell) -> Desired                       what the cell is to run and to stop, whose logs are wanted
    gateway.wait(cell, known: Desired, timeout) -> Desired returns when it differs from `known`
    gateway.report(cell, nodes, statuses, session=...)     nodes=None: the agent is there and the engine is not

The agent's loop: `start` every launch and `stop` every stop of `desired` (both idempotent), then report the status of
all of them, every time: a report is level, not change; reports may be lost or come twice. `Absent` of a launch that was
seen alive has it stopped; only `Absent` of one that the agent had been told to stop lets the next epoch start; a start
that leaves no trace for a minute is made again under the next epoch.
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
