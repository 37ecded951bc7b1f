"""What people ask of work that is there: one durable write each, that a controller acts on; twice is once."""

from collections.abc import Callable
from typing import Protocol

from helios.control import cell as cells
from helios.control.owners import makes_jobs
from helios.control.status import placement
from helios.errors import ConflictError, NotFoundError
from helios.lifecycle import TERMINAL
from helios.store import Event, Look, Record, Store, SystemClock

DEFAULT_TENANT = "default"
"""The tenant of all that names none; it is there from the first start on."""
_ATTEMPTS = 20
_SHOWN_NAMES = 10


class Records(Protocol):
    """Where records are read: the store, or a mirror of it."""

    def records(self, kind: str) -> tuple[Record, ...]: ...


def request_cancel(store: Store, kind: str, name: str) -> Record:
    """Ask a Job or Curriculum to stop, with grace; nothing where it is over.

    Raises:
        NotFoundError: nothing has that name.
        ConflictError: the kind cannot be cancelled.
    """
    if kind not in {"Job", "Curriculum"}:
        raise ConflictError(f"a {kind} cannot be cancelled", hint="delete it instead")

    def change(record: Record) -> Record:
        return record if record.state in TERMINAL else record.with_status(cancelRequested=True)

    return _edit(store, kind, name, change, "CancelRequested")


def request_rerun(store: Store, name: str, *, kind: str = "Curriculum", from_failed: bool = True) -> Record:
    """Ask for a failed or cancelled Job or Curriculum to be tried again.

    A curriculum goes on in the same run with what failed; where `from_failed` is false, it begins a new run.

    Raises:
        NotFoundError: nothing has that name, or its tenant is gone.
        ConflictError: it is not over, or it succeeded and only what failed was asked for.
    """

    def change(record: Record) -> Record:
        if record.state not in TERMINAL:
            raise ConflictError(f"{kind} {name!r} is {record.state}", hint="cancel it first, or wait for its end")
        if record.state == "Succeeded" and (from_failed or kind == "Job"):
            raise ConflictError(f"{kind} {name!r} has succeeded; nothing in it failed")
        living_tenant(store.find, record.spec["tenant"], store)
        return record.with_status(rerunRequested="failed" if from_failed else "all")

    return _edit(store, kind, name, change, "RerunRequested")


def request_redeploy(store: Store, name: str) -> Record:
    """Ask a Service to be deployed again with the spec it has: it then serves what the model's alias names now."""
    return _edit(store, "Service", name, lambda record: record.with_status(redeployRequested=True), "RedeployRequested")


def request_preempt(store: Store, name: str, reason: str = "") -> Record:
    """Ask for a running job's resources: notice, its grace for a checkpoint, then it goes back to the queue.

    Raises:
        NotFoundError: nothing has that name.
        ConflictError: it holds no resources, or it is being stopped already.
    """

    def change(record: Record) -> Record:
        if makes_jobs(record):
            raise ConflictError(f"job {name!r} only makes other jobs", hint="preempt those, or cancel it")
        if record.state in TERMINAL or placement(record) is None:
            raise ConflictError(f"job {name!r} is {record.state} and holds no resources")
        if record.status.get("stop"):
            raise ConflictError(f"job {name!r} is being stopped already: {record.status['stop']['message']}")
        return record.with_status(preemptRequested=reason or True)

    return _edit(store, "Job", name, change, "PreemptionRequested")


def request_cordon(store: Store, cell: str, node: str = "", reason: str = "") -> Record:
    """Place nothing new on a node, or on the whole cell; what runs there stays. Raises `NotFoundError`."""
    return _cordon(store, cell, node, reason, drain=False)


def request_drain(store: Store, cell: str, node: str = "", reason: str = "") -> Record:
    """Place nothing new on a node, or the whole cell, and move away what runs there. Raises `NotFoundError`."""
    return _cordon(store, cell, node, reason, drain=True)


def request_uncordon(store: Store, cell: str, node: str = "") -> Record:
    """Open a node, or everything in the cell, for new work again.

    Raises:
        NotFoundError: there is no such cell or node.
        ConflictError: the whole cell is cordoned, and only a node of it was named.
    """

    def change(record: Record) -> Record:
        cordons = record.status.get("cordons", {})
        if node and node not in cordons:
            _known_node(record, node)
            if cells.ALL_NODES in cordons:
                raise ConflictError(f"all of cell {cell!r} is cordoned", hint=f"helios cell uncordon {cell}")
        return cells.without_cordon(record, node or cells.ALL_NODES)

    return _edit(store, "Cell", cell, change, "Uncordoned")


def _cordon(store: Store, cell: str, node: str, reason: str, *, drain: bool) -> Record:
    now = SystemClock().now()

    def change(record: Record) -> Record:
        if node:
            _known_node(record, node)
        return cells.with_cordon(record, node or cells.ALL_NODES, reason=reason, drain=drain, now=now)

    return _edit(store, "Cell", cell, change, "Drained" if drain else "Cordoned")


def _known_node(record: Record, node: str) -> None:
    names = [item["name"] for item in record.status.get("nodes", [])]
    if node not in names:
        raise NotFoundError(f"node of cell {record.name}", node, known=names)


def request_delete(store: Store, kind: str, name: str) -> Record:
    """Ask for an object to go; what runs is stopped with grace first.

    Raises:
        NotFoundError: nothing has that name.
        ConflictError: it is the default tenant, or a tenant that work which is not over belongs to.
    """
    if kind == "Tenant":
        _not_in_use(store, store.get(kind, name).name)
    return store.request_delete(kind, name)


def living_tenant(look: Look, name: str, known: Records) -> None:
    """Raise where work cannot be taken on for a tenant: `NotFoundError` without one, `ConflictError` as it goes."""
    tenant = look("Tenant", name)
    if tenant is None:
        names = [tenant.name for tenant in known.records("Tenant")]
        raise NotFoundError("tenant", name, known=names, hint="apply the tenant first, or use one that there is")
    if tenant.deleting:
        raise ConflictError(f"tenant {name!r} is being deleted", hint="wait until it is gone, or use another one")


def work_of(store: Records, tenant: str) -> list[Record]:
    """Everything of the tenant that is not over; a service never is, as long as it is there."""
    work = store.records("Job") + store.records("Service") + store.records("Curriculum")
    return [
        item
        for item in work
        if item.spec["tenant"] == tenant and (item.kind == "Service" or item.state not in TERMINAL)
    ]


def _not_in_use(store: Store, tenant: str) -> None:
    if tenant == DEFAULT_TENANT:
        raise ConflictError(
            f"tenant {DEFAULT_TENANT!r} cannot be deleted: it is whose everything is that names no tenant",
            hint="apply it with other quotas instead",
        )
    names = [f"{item.kind.lower()}/{item.name}" for item in work_of(store, tenant)]
    if names:
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        raise ConflictError(
            f"tenant {tenant!r} is in use by {', '.join(names[:_SHOWN_NAMES])}{more}",
            hint="cancel or delete that first",
        )


def _edit(store: Store, kind: str, name: str, change: Callable[[Record], Record], reason: str) -> Record:
    """Write a change of the present version, again where a controller wrote in between."""
    for _ in range(_ATTEMPTS):
        record = store.get(kind, name)
        changed = change(record)
        if changed == record:
            return record
        try:
            return store.save(changed, events=[Event(kind, name, record.uid, reason, "asked for by a person")])
        except ConflictError:
            continue
    raise ConflictError(f"{kind} {name!r} keeps changing", hint="try again")
