"""The API as an application: routes, what guards them, and how their errors leave."""

from collections.abc import Callable, Collection, Iterable, Mapping

from fastapi import Depends, FastAPI, Response
from fastapi.routing import APIRoute, iter_route_contexts

from helios import __version__
from helios.api import openapi, problems
from helios.api.access import add_access_routes
from helios.api.actions import add_action_routes
from helios.api.agents import agent_router
from helios.api.answers import JSON, encode
from helios.api.auth import Authenticator
from helios.api.caller import Authority, Calling
from helios.api.events import add_event_routes
from helios.api.fleet import Fleet
from helios.api.guard import Guard
from helios.api.hub import Hubs
from helios.api.limits import Limits
from helios.api.logs import LogReader, LogRelay, ReadLocal, add_log_routes
from helios.api.objects import add_object_routes
from helios.api.oidc import Oidc
from helios.api.roles import LITERAL_PATHS, ROUTES
from helios.api.streams import add_stream_routes
from helios.api.tokens import KIND, Tokens
from helios.api.views import add_health_routes, add_view_routes
from helios.control import ControlPlane
from helios.ports import Clock
from helios.store import SystemClock


def create_app(
    control: ControlPlane,
    *,
    token: str = "",
    logs: ReadLocal | None = None,
    links: Mapping[str, str],
    local_cells: Callable[[], Collection[str]] | None = None,
    oidc: Oidc | None = None,
    limits: Limits = Limits(),  # noqa: B008  # frozen
    replica: str = "",
    clock: Clock | None = None,
) -> FastAPI:
    """Build the API over a control plane.

    Args:
        control: what the routes act on; it is neither started nor stopped here.
        token: a bearer token with the role admin that stands in no store; empty where there is none.
        logs: log bytes of a launch by (uid, epoch, offset), and the offset to ask for next, for cells whose agents are
            in this process; all other logs are asked of the cells' agents.
        links: where else to look, by name (`mlflow`, `ray`), as `/v1/status` tells it.
        local_cells: names of the cells that `logs` is good for; without it, of all.
        oidc: an issuer whose tokens are taken, too.
        limits: how much one token may ask of this replica.
        replica: name of this process, as `/v1/status` tells it.
        clock: what expiry is reckoned by.
    """
    fleet, clock = Fleet(control.store, control.mirror), clock or SystemClock()
    authority, hubs = Authority(fleet), Hubs(fleet)
    app = FastAPI(
        title="HELIOS",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        dependencies=[Depends(authority)],
        # Ours are in helios.telemetry; FastAPI would look for a provider in the environment at every request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    add_health_routes(app, fleet)
    add_stream_routes(app, fleet, hubs)
    add_object_routes(app, control, hubs)
    add_action_routes(app)
    add_event_routes(app, hubs)
    add_log_routes(app, LogReader(logs, LogRelay(fleet), local_cells))
    add_view_routes(app, control, links=links, replica=replica, clock=clock)
    add_access_routes(app, clock)
    app.include_router(agent_router(control.gateway, document=lambda name: control.mirror.get("Cell", name).document()))
    _add_openapi_route(app)
    check_routes(app, authority)
    problems.install(app, methods=lambda path: methods_of(app, path), refused=authority.note_refusal)
    tokens = Tokens(lambda name: fleet.cached(KIND, name), lambda name: fleet.fresh(KIND, name), clock)
    app.add_middleware(Guard, authenticator=Authenticator(token, tokens, oidc), limits=limits)
    return app


def check_routes(app: FastAPI, authority: Authority) -> None:
    """Hold every route to the table of permissions, and the table to the routes.

    Raises:
        ValueError: a route that anybody could call, because nobody said who may.
    """
    found = set()
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if not isinstance(route, APIRoute):
            raise ValueError(f"{route} is no route of the API: nothing says who may call it")  # noqa: TRY004
        dependant = context.dependant
        if all(dependency.call is not authority for dependency in dependant.dependencies):
            raise ValueError(f"{route.path} does not ask who calls")
        found |= {(method, route.path) for method in context.methods or ()}
    if undeclared := found - ROUTES.keys():
        raise ValueError(f"nothing says who may call {sorted(undeclared)}: see helios.api.roles.ROUTES")
    if missing := ROUTES.keys() - found:
        raise ValueError(f"permissions are declared for routes that are not there: {sorted(missing)}")


def methods_of(app: FastAPI, path: str) -> Iterable[str]:
    """The methods that a path answers to."""
    if path in LITERAL_PATHS:
        return {method for method, declared in ROUTES if declared == path}
    return {
        method
        for context in iter_route_contexts(app.routes)
        if context.path_regex.match(path)
        for method in context.methods or ()
    }


def _add_openapi_route(app: FastAPI) -> None:
    written: list[bytes] = []

    @app.get(
        "/v1/openapi.json",
        summary="This document",
        tags=["Views"],
        responses=openapi.answers({"type": "object"}),
    )
    async def openapi_document(caller: Calling) -> Response:
        del caller
        if not written:
            written.append(encode(openapi.document(app)))
        return Response(written[0], media_type=JSON)
