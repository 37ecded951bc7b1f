"""What the control plane refuses before it is written: references to nothing, and changes that cannot be."""

from collections.abc import Iterable

from helios.control.job_machine import TERMINAL
from helios.control.requests import living_tenant
from helios.errors import ConflictError, Problem, SpecError, nearest
from helios.spec import AnyDocument, Curriculum, Job, Service, to_json
from helios.store import Applied, Record, Store


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
    current = _admit(document, store)
    outlived = current is not None and current.kind == "Job" and current.spec != to_json(document)["spec"]
    return store.apply(document, idempotency_key=idempotency_key, replacing=current if outlived else None)


def check(document: AnyDocument, store: Store) -> None:
    """Raise what `apply` would refuse the document for; write nothing."""
    _admit(document, store)


def _admit(document: AnyDocument, store: Store) -> Record | None:
    """What has the document's name now; raises where the document cannot take its place."""
    if isinstance(document, Job | Curriculum | Service):
        living_tenant(store, document.spec.tenant)
        problems = _unknown_cells(document, [cell.name for cell in store.records("Cell")])
        if problems:
            raise SpecError(problems)
    current = store.find(document.kind, document.metadata.name)
    if current is not None and isinstance(document, Job | Curriculum):
        _not_while_running(document, current)
    return current


def _unknown_cells(document: Job | Curriculum | Service, known: list[str]) -> list[Problem]:
    problems = []
    for field, cells in _placements(document):
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
    if current.state not in TERMINAL and current.spec != to_json(document)["spec"]:
        raise ConflictError(
            f"{current.kind} {current.name!r} is {current.state} with another spec",
            hint=f"cancel it first (helios cancel {current.name}), or use another name",
        )
