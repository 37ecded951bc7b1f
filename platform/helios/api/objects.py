"""Routes of the objects: apply, list, watch, get, delete, explain; and the actions that some kinds have."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Response

from helios.api.views import history
from helios.api.waiting import MAX_INTEGER, Wait, until
from helios.control import ControlPlane, request_cancel, request_delete, request_redeploy, request_rerun
from helios.control import apply as admit
from helios.errors import InputError, Problem, SpecError
from helios.spec import AnyDocument, configs, from_json
from helios.store import Change, Record, Store

MAX_PAGE = 1000
LAST_EVENTS = 50

Object = dict[str, Any]
Document = Annotated[dict[str, Any], Body(description="One document, as in YAML.")]
Selector = Annotated[str, Query(alias="labelSelector", description="Labels, as in team=avatar,tier=gold.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
After = Annotated[str, Query(description="The `next` of the page before.")]
Revision = Annotated[int | None, Query(ge=0, le=MAX_INTEGER, description="Only what changed after this revision.")]
Everything = Annotated[bool, Query(description="Begin a new run; else go on where it failed.")]
Key = Annotated[str, Header(alias="Idempotency-Key", max_length=200)]


def object_router(control: ControlPlane, *, kind: str, plural: str) -> APIRouter:
    """Routes that every kind has, under `/v1/<plural>`."""
    router = APIRouter(prefix=f"/v1/{plural}", tags=[kind])
    store = control.store

    @router.put("/{name}", summary=f"Create or change a {kind}")
    def apply(name: str, document: Document, response: Response, idempotency_key: Key = "") -> Object:
        applied = admit(store, _checked(document, kind, name), idempotency_key=idempotency_key)
        response.status_code = 201 if applied.change is Change.CREATED else 200
        response.headers["Helios-Result"] = applied.change.value
        return applied.record.document()

    @router.get("", summary=f"List {plural}, or wait for one to change (`watch`)")
    async def many(
        selector: Selector = "", limit: Limit = 500, after: After = "", watch: Revision = None, wait: Wait = 0.0
    ) -> Object:
        labels = _labels(selector)

        def look() -> tuple[int, list[Record]]:
            revision = store.revision()
            records = [record for record in store.records(kind, labels=labels) if record.name > after]
            return revision, [record for record in records if watch is None or record.resource_version > watch]

        revision, records = await until(store, look, found=lambda seen: watch is None or bool(seen[1]), wait_s=wait)
        page = records[:limit]
        more = page[-1].name if len(records) > limit else None
        return {"revision": revision, "items": [record.document() for record in page], "next": more}

    @router.get("/{name}", summary=f"Get a {kind}")
    def one(name: str) -> Object:
        return store.get(kind, name).document()

    @router.delete("/{name}", summary=f"Delete a {kind}; what runs is stopped first", status_code=202)
    def delete(name: str) -> Object:
        return request_delete(store, kind, name).document()

    @router.get("/{name}/explain", summary=f"Why a {kind} is where it is, and what would move it")
    def explain(name: str) -> Object:
        why = control.explain(name, kind)
        stage_job = (why.get("job") or {}).get("name")
        happened = list(history(store, kind, name))
        if stage_job:
            happened += history(store, "Job", stage_job)
        return {**why, "events": sorted(happened, key=lambda event: event["number"])[-LAST_EVENTS:]}

    return router


def action_router(store: Store) -> APIRouter:
    """The verbs of jobs, curricula and services."""
    router = APIRouter(prefix="/v1", tags=["Actions"])

    @router.post("/jobs/{name}/cancel", status_code=202)
    def cancel_job(name: str) -> Object:
        return request_cancel(store, "Job", name).document()

    @router.post("/curricula/{name}/cancel", status_code=202)
    def cancel_curriculum(name: str) -> Object:
        return request_cancel(store, "Curriculum", name).document()

    @router.post("/jobs/{name}/rerun", status_code=202)
    def rerun_job(name: str) -> Object:
        return request_rerun(store, name, kind="Job").document()

    @router.post("/curricula/{name}/rerun", status_code=202)
    def rerun_curriculum(name: str, everything: Everything = False) -> Object:
        return request_rerun(store, name, from_failed=not everything).document()

    @router.post("/services/{name}/redeploy", status_code=202)
    def redeploy_service(name: str) -> Object:
        return request_redeploy(store, name).document()

    return router


def _checked(body: Object, kind: str, name: str) -> AnyDocument:
    document = from_json(body)
    problems = [
        Problem(f"the URL says {wanted!r}", field=field, value=found)
        for field, wanted, found in (("kind", kind, document.kind), ("metadata.name", name, document.metadata.name))
        if wanted != found
    ]
    if problems:
        raise SpecError(problems)
    configs.check(document)
    return document


def _labels(selector: str) -> dict[str, str]:
    labels = {}
    for part in filter(None, (piece.strip() for piece in selector.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise InputError(f"a label selector is like team=avatar,tier=gold, not {selector!r}")
        labels[key.strip()] = value.strip()
    return labels
