"""The API as an application: routes, what guards them, and how their errors leave."""

from collections.abc import Callable, Mapping

from fastapi import FastAPI

from helios import __version__
from helios.api import problems
from helios.api.guard import Guard
from helios.api.logs import LogReader, log_router
from helios.api.objects import action_router, object_router
from helios.api.views import view_router
from helios.control import ControlPlane
from helios.spec import PLURALS


def create_app(
    control: ControlPlane, *, token: str, logs: Callable[[str, int, int], tuple[bytes, int]], links: Mapping[str, str]
) -> FastAPI:
    """Build the API over a control plane.

    Args:
        control: what the routes act on; it is neither started nor stopped here.
        token: the bearer token that every route but /healthz asks for.
        logs: log bytes of a launch by (uid, epoch, offset), and the offset to ask for next.
        links: where else to look, by name (`mlflow`, `ray`), as `/v1/status` tells it.
    """
    app = FastAPI(
        title="HELIOS",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        # Only our own problem documents leave; FastAPI's default 422 model would be a lie in the OpenAPI document.
        responses={"default": {"description": "RFC 9457 problem", "content": {problems.MEDIA_TYPE: {}}}},
    )
    problems.install(app)
    app.add_middleware(Guard, token=token)
    for kind, plural in PLURALS.items():
        app.include_router(object_router(control, kind=kind, plural=plural))
    app.include_router(action_router(control.store))
    app.include_router(log_router(control.store, LogReader(logs)))
    app.include_router(view_router(control.store, links=links))
    return app
