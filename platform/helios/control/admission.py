"""What the control plane refuses before it is written: references to nothing, and changes that cannot be."""

from collections.abc import Iterable

from pydantic import ValidationError

from helios.control import schedule
from helios.control.array import member_name
from helios.control.job_machine import TERMINAL
from helios.control.requests import living_tenant
from helios.errors import ConflictError, Problem, SpecError, nearest
from helios.spec import KINDS, AnyDocument, Curriculum, Job, Service, to_json
from helios.store import Applied, Change, Record, Store

MAX_NAME = 63


def apply(store: Store, document: AnyDocument, *, idempotency_key: str = "") -> Applied:
    """Check a document against what is there, then write it.

    A job or curriculum that is over and gets another spec starts anew: a job as a new object (its old checkpoints
    belong to the old spec), a curriculum as its next run.

    Raises:
        SpecError: `placement.cells` names unknown cells.
        NotFoundError: its tenant does not exist.
        ConflictError: it runs with another spec, its tenant is being deleted, or the idempotency key came with other
            content.
    """
    current = check(document, store)
    if current is not None and _only_older(document, current):
        return Applied(current, Change.UNCHANGED)
    outlived = current is not None and current.kind == "Job" and not _same_spec(document, current)
    return store.apply(document, idempotency_key=idempotency_key, replacing=current if outlived else None)


def check(document: AnyDocument, store: Store) -> Record | None:
    """What has the document's name now; raises what `apply` would refuse the document for, and writes nothing."""
    if isinstance(document, Job | Curriculum | Service):
        living_tenant(store, document.spec.tenant)
        problems = _unknown_cells(document, store)
        if isinstance(document, Job):
            problems += _wrong_job(document, store)
        if problems:
            raise SpecError(problems)
    current = store.find(document.kind, document.metadata.name)
    if current is not None and isinstance(document, Job | Curriculum):
        _not_while_running(document, current)
    return current


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


def _wrong_job(document: Job, store: Store) -> list[Problem]:
    """Needs that are not there, times that are none, members whose names would be too long."""
    spec, name = document.spec, document.metadata.name
    problems = [] if spec.schedule is None else schedule.problems(spec.schedule)
    for index, needed in enumerate(spec.needs):
        field = f"spec.needs[{index}]"
        if needed == name:
            problems.append(Problem("a job cannot wait for itself", field=field, value=needed))
            continue
        other = store.find("Job", needed)
        if other is None or other.spec["tenant"] != spec.tenant:
            known = [job.name for job in store.records("Job") if job.spec["tenant"] == spec.tenant]
            message = f"tenant {spec.tenant!r} has no job {needed!r}; a job is submitted after those that it needs"
            problems.append(Problem(message, field=field, value=needed, nearest=nearest(needed, known)))
        elif _waits_for(store, other, name):
            problems.append(Problem(f"job {needed!r} waits for this one", field=field, value=needed))
    if spec.array is not None and len(member_name(name, spec.array.size - 1)) > MAX_NAME:
        message = f"the members' names would be over {MAX_NAME} characters; take a shorter name"
        problems.append(Problem(message, field="metadata.name", value=name))
    return problems


def _waits_for(store: Store, job: Record, name: str) -> bool:
    """Whether a job waits, itself or through others, for the one of that name."""
    seen, ahead = {job.name}, list(job.spec.get("needs", ()))
    while ahead:
        needed = ahead.pop()
        if needed == name:
            return True
        if needed not in seen:
            seen.add(needed)
            other = store.find("Job", needed)
            ahead += [] if other is None else other.spec.get("needs", ())
    return False


def _unknown_cells(document: Job | Curriculum | Service, store: Store) -> list[Problem]:
    placements = [(field, cells) for field, cells in _placements(document) if cells]
    known = [cell.name for cell in store.records("Cell")] if placements else []
    problems = []
    for field, cells in placements:
        for index, cell in enumerate(cells):
            if cell not in known:
                message = f"no cell is named {cell!r}"
                near = nearest(cell, known)
                problems.append(Problem(message, field=f"{field}[{index}]", value=cell, nearest=near))
    return problems


def _placements(document: Job | Curriculum | Service) -> Iterable[tuple[str, list[str]]]:
    if isinstance(document, Curriculum):
        yield "spec.defaults.placement.cells", document.spec.defaults.placement.cells
        for index, stage in enumerate(document.spec.stages):
            yield f"spec.stages[{index}].placement.cells", stage.placement.cells
    else:
        yield "spec.placement.cells", document.spec.placement.cells


def _not_while_running(document: Job | Curriculum, current: Record) -> None:
    if current.state not in TERMINAL and not _same_spec(document, current):
        raise ConflictError(
            f"{current.kind} {current.name!r} is {current.state} with another spec",
            hint=f"cancel it first (helios cancel {current.name}), or use another name",
        )
