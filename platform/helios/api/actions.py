"""What people ask of work and of cells that are there: verbs, each of them one durable write."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import anyio.to_thread
from fastapi import FastAPI, Query, Request, Response
from pydantic import Field, ValidationError

from helios.api import openapi
from helios.api.answers import Answer, read_json
from helios.api.caller import Calling
from helios.api.roles import Permission
from helios.control import (
    request_cancel,
    request_cordon,
    request_drain,
    request_preempt,
    request_redeploy,
    request_rerun,
    request_uncordon,
)
from helios.errors import SpecError
from helios.spec.base import Model
from helios.spec.problems import problems_of
from helios.store import Record, Store

Everything = Annotated[bool, Query(description="Begin a new run; else go on where it failed.")]
Act = Callable[[Store, str], Record]
OnNodes = Callable[[Store, str, "NodeSelection"], Record]


class NodeSelection(Model):
    """What a cordon, a drain or an uncordon is about."""

    node: Annotated[str, Field(max_length=253)] = ""
    """One node, or empty: all of the cell."""
    reason: Annotated[str, Field(max_length=500)] = ""
    """For people."""


_ON_NODES: Mapping[str, tuple[OnNodes, str]] = {
    "cordon": (
        lambda store, cell, what: request_cordon(store, cell, what.node, what.reason),
        "Place nothing new on a node or the whole cell; what runs there stays",
    ),
    "drain": (
        lambda store, cell, what: request_drain(store, cell, what.node, what.reason),
        "Place nothing new on a node or the whole cell, and move away what runs there",
    ),
    "uncordon": (
        lambda store, cell, what: request_uncordon(store, cell, what.node),
        "Open a node or the whole cell for new work again",
    ),
}


def add_action_routes(app: FastAPI) -> None:
    """The verbs of jobs, curricula, services and cells."""
    _add(app, "Job", "/v1/jobs/{name}/cancel", lambda store, name: request_cancel(store, "Job", name))
    _add(
        app, "Curriculum", "/v1/curricula/{name}/cancel", lambda store, name: request_cancel(store, "Curriculum", name)
    )
    _add(app, "Job", "/v1/jobs/{name}/rerun", lambda store, name: request_rerun(store, name, kind="Job"))
    _add(app, "Job", "/v1/jobs/{name}/preempt", request_preempt, permission=Permission.PREEMPT)
    _add(app, "Service", "/v1/services/{name}/redeploy", request_redeploy)
    _add_rerun_of_curricula(app)
    for verb, (act, summary) in _ON_NODES.items():
        _add_on_nodes(app, verb, act, summary)


def _cancelling(kind: str) -> Act:
    return lambda store, name: request_cancel(store, kind, name)


def _add(app: FastAPI, kind: str, path: str, act: Act, *, permission: Permission = Permission.WORK) -> None:
    verb = path.rpartition("/")[2]

    @app.post(
        path,
        name=f"{verb}_{kind.lower()}",
        summary=f"{verb.capitalize()} a {kind}",
        tags=[kind],
        status_code=202,
        responses=_responses(kind),
    )
    def action(name: str, caller: Calling) -> Response:
        caller.to_write(kind, name, permission)
        return Answer(act(caller.store, name).document(), status_code=202)


def _add_rerun_of_curricula(app: FastAPI) -> None:
    @app.post(
        "/v1/curricula/{name}/rerun",
        summary="Rerun a Curriculum",
        tags=["Curriculum"],
        status_code=202,
        responses=_responses("Curriculum"),
    )
    def rerun_curriculum(name: str, caller: Calling, everything: Everything = False) -> Response:
        caller.to_write("Curriculum", name)
        return Answer(request_rerun(caller.store, name, from_failed=not everything).document(), status_code=202)


def _add_on_nodes(app: FastAPI, verb: str, act: OnNodes, summary: str) -> None:
    @app.post(
        f"/v1/cells/{{name}}/{verb}",
        name=verb,
        summary=summary,
        tags=["Cell"],
        status_code=202,
        responses=_responses("Cell", 413, 415),
        openapi_extra=openapi.body(openapi.ref("NodeSelection"), required=False),
    )
    async def on_nodes(name: str, request: Request, caller: Calling) -> Response:
        body = await read_json(request) if await request.body() else {}

        def work() -> Response:
            what = _selection(body)
            caller.to_write("Cell", name)
            return Answer(act(caller.store, name, what).document(), status_code=202)

        return await anyio.to_thread.run_sync(work)


def _selection(body: Any) -> NodeSelection:
    """Raises `SpecError`."""
    try:
        return NodeSelection.model_validate(body, by_alias=True, by_name=False)
    except ValidationError as error:
        raise SpecError(problems_of(error, NodeSelection, body)) from error


def _responses(kind: str, *errors: int) -> openapi.Responses:
    return openapi.answers(openapi.ref(kind), status=202, errors=(404, 409, *errors, 507))
