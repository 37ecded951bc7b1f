"""What the control plane refuses before it is written: references to nothing, and changes that cannot be."""

from collections.abc import Callable, Iterable

from pydantic import ValidationError

from helios.control import schedule
from helios.control.array import member_name
from helios.control.requests import Records, living_tenant
from helios.errors import ConflictError, Problem, SpecError, nearest
from helios.lifecycle import TERMINAL, JobState
from helios.spec import KINDS, AnyDocument, Curriculum, Job, Service, to_json
from helios.store import Admission, Applied, Birth, Event, Look, Record, Store, Verdict, timestamp

MAX_NAME = 63
Authorize = Callable[[Record | None], None]
"""Told what has the name now; raises where its caller may not put the document in its place."""


def apply(
    store: Store,
    document: AnyDocument,
    *,
    idempotency_key: str = "",
    known: Records | None = None,
    authorize: Authorize = lambda _: None,
) -> Applied:
    """Check a document against what is there, and write it, in one transaction.

    A job or curriculum that is over and gets another spec starts anew: a job as a new object (its old checkpoints
    belong to the old spec), a curriculum as its next run.

    Args:
        store: where it is written.
        document: what is to be there.
        idempotency_key: the same key again answers with what it made.
        known: where names are looked up for a refusal; the store, if nothing quicker is at hand.
        authorize: asked inside the transaction.

    Raises:
        SpecError: `placement.cells` names unknown cells.
        NotFoundError: its tenant does not exist.
        ConflictError: it runs with another spec, its tenant is being deleted, or the idempotency key came with other
            content.
    """
    kind, name = document.kind, document.metadata.name

    def decide(look: Look) -> Verdict:
        authorize(look(kind, name))
        current = check(document, look, known or store)
        if current is not None and _only_older(document, current):
            return Verdict.KEEP
        outlived = current is not None and kind == "Job" and not _same_spec(document, current)
        return Verdict.REPLACE if outlived else Verdict.WRITE

    admission = Admission(decide, looks=tuple(_looks(document)), birth=lambda now: _birth(document, now))
    return store.apply(document, idempotency_key=idempotency_key, admission=admission)


def check(document: AnyDocument, look: Look, known: Records) -> Record | None:
    """What has the document's name now; raises what `apply` would refuse the document for, and writes nothing."""
    if isinstance(document, Job | Curriculum | Service):
        living_tenant(look, document.spec.tenant, known)
        problems = _unknown_cells(document, look, known)
        if isinstance(document, Job):
            problems += _wrong_job(document, look, known)
        if problems:
            raise SpecError(problems)
    current = look(document.kind, document.metadata.name)
    if current is not None and isinstance(document, Job | Curriculum):
        _not_while_running(document, current)
    return current


def _looks(document: AnyDocument) -> Iterable[tuple[str, str]]:
    """What `check` will look for, as far as the document says."""
    if isinstance(document, Job | Curriculum | Service):
        yield "Tenant", document.spec.tenant
        yield from (("Cell", cell) for _, cells in _placements(document) for cell in cells)
        if isinstance(document, Job):
            yield from (("Job", needed) for needed in document.spec.needs)


def _birth(document: AnyDocument, now: float) -> Birth:
    """A job that waits for nothing but a place is in the queue from its first moment on."""
    if not isinstance(document, Job) or document.spec.needs or document.spec.array or document.spec.schedule:
        return Birth({"state": "Pending"})
    moment, message = timestamp(now), "waits for the scheduler"
    status = {
        "state": str(JobState.QUEUED),
        "reason": "Queued",
        "message": message,
        "submittedAt": moment,
        "queuedAt": moment,
    }
    return Birth(status, (Event("Job", document.metadata.name, "", "Queued", f"{JobState.QUEUED}: {message}"),))


def _only_older(document: AnyDocument, current: Record) -> bool:
    """Whether it is what is stored, but for fields that the notation has had since and that have their defaults.

    An upgrade must not make a run of every curriculum that is applied again as it was.
    """
    wanted = to_json(document)
    metadata = wanted["metadata"]
    same = (metadata.get("labels") or {}) == current.labels and (
        metadata.get("annotations") or {}
    ) == current.annotations
    return same and not current.deleting and current.spec != wanted["spec"] and _same_spec(document, current)


def _same_spec(document: AnyDocument, current: Record) -> bool:
    """Whether the spec is the one that is stored, though it was stored before the notation had all of its fields."""
    wanted = to_json(document)["spec"]
    if current.spec == wanted:
        return True
    stored = {"kind": current.kind, "metadata": {"name": current.name}, "spec": dict(current.spec)}
    try:
        return bool(to_json(KINDS[current.kind].model_validate(stored, by_alias=True))["spec"] == wanted)
    except ValidationError:
        return False


def _wrong_job(document: Job, look: Look, known: Records) -> list[Problem]:
    """Needs that are not there, times that are none, members whose names would be too long."""
    spec, name = document.spec, document.metadata.name
    problems = [] if spec.schedule is None else schedule.problems(spec.schedule)
    for index, needed in enumerate(spec.needs):
        field = f"spec.needs[{index}]"
        if needed == name:
            problems.append(Problem("a job cannot wait for itself", field=field, value=needed))
            continue
        other = look("Job", needed)
        if other is None or other.spec["tenant"] != spec.tenant:
            names = [job.name for job in known.records("Job") if job.spec["tenant"] == spec.tenant]
            message = f"tenant {spec.tenant!r} has no job {needed!r}; a job is submitted after those that it needs"
            problems.append(Problem(message, field=field, value=needed, nearest=nearest(needed, names)))
        elif _waits_for(look, other, name):
            problems.append(Problem(f"job {needed!r} waits for this one", field=field, value=needed))
    if spec.array is not None and len(member_name(name, spec.array.size - 1)) > MAX_NAME:
        message = f"the members' names would be over {MAX_NAME} characters; take a shorter name"
        problems.append(Problem(message, field="metadata.name", value=name))
    return problems


def _waits_for(look: Look, job: Record, name: str) -> bool:
    """Whether a job waits, itself or through others, for the one of that name."""
    seen, ahead = {job.name}, list(job.spec.get("needs", ()))
    while ahead:
        needed = ahead.pop()
        if needed == name:
            return True
        if needed not in seen:
            seen.add(needed)
            other = look("Job", needed)
            ahead += [] if other is None else other.spec.get("needs", ())
    return False


def _unknown_cells(document: Job | Curriculum | Service, look: Look, known: Records) -> list[Problem]:
    problems = []
    for field, cells in _placements(document):
        for index, cell in enumerate(cells):
            if look("Cell", cell) is None:
                message = f"no cell is named {cell!r}"
                near = nearest(cell, [record.name for record in known.records("Cell")])
                problems.append(Problem(message, field=f"{field}[{index}]", value=cell, nearest=near))
    return problems


def _placements(document: Job | Curriculum | Service) -> Iterable[tuple[str, list[str]]]:
    """Cells that a document names, with the field that names them: those that may run it, and where its data is."""
    if isinstance(document, Curriculum):
        found = {"spec.defaults.placement": document.spec.defaults.placement}
        found |= {
            f"spec.stages[{index}].placement": stage.placement for index, stage in enumerate(document.spec.stages)
        }
    else:
        found = {"spec.placement": document.spec.placement}
    for field, placement in found.items():
        yield f"{field}.cells", placement.cells
        yield f"{field}.data", [source.cell for source in placement.data]


def _not_while_running(document: Job | Curriculum, current: Record) -> None:
    if current.state not in TERMINAL and not _same_spec(document, current):
        raise ConflictError(
            f"{current.kind} {current.name!r} is {current.state} with another spec",
            hint=f"cancel it first (helios cancel {current.name}), or use another name",
        )
