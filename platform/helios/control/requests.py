"""What people ask of work that is there: one durable write each, that a controller acts on; twice is once."""

from collections.abc import Callable

from helios.control.job_machine import TERMINAL
from helios.errors import ConflictError
from helios.store import Event, Record, Store

_ATTEMPTS = 20


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
        NotFoundError: nothing has that name.
        ConflictError: it is not over, or it succeeded and only what failed was asked for.
    """

    def change(record: Record) -> Record:
        if record.state not in TERMINAL:
            raise ConflictError(f"{kind} {name!r} is {record.state}", hint="cancel it first, or wait for its end")
        if record.state == "Succeeded" and (from_failed or kind == "Job"):
            raise ConflictError(f"{kind} {name!r} has succeeded; nothing in it failed")
        return record.with_status(rerunRequested="failed" if from_failed else "all")

    return _edit(store, kind, name, change, "RerunRequested")


def request_redeploy(store: Store, name: str) -> Record:
    """Ask a Service to be deployed again with the spec it has: it then serves what the model's alias names now."""
    return _edit(store, "Service", name, lambda record: record.with_status(redeployRequested=True), "RedeployRequested")


def request_delete(store: Store, kind: str, name: str) -> Record:
    """Ask for an object to go; what runs is stopped with grace first. Raises `NotFoundError`."""
    return store.request_delete(kind, name)


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
