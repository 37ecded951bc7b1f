"""The OpenAPI 3.1 document: what every route takes and answers, said once and held to by the fuzz test."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from helios import __version__
from helios.api import schemas
from helios.api.problems import MEDIA_TYPE as PROBLEM
from helios.api.roles import ROUTES, Permission

Schema = dict[str, Any]
Responses = dict[int | str, dict[str, Any]]
JSON = "application/json"
EVERYWHERE = (401, 403, 422, 429, 500, 503)
WITH_BODY = (413, 415)
_REQUEST_ID = {"X-Request-Id": {"description": "Id of the request, as in the logs.", "schema": {"type": "string"}}}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def page_of(kind: str) -> Schema:
    return ref(f"{kind}Page")


def answers(schema: Schema, *, status: int = 200, errors: Iterable[int] = ()) -> Responses:
    """What a route that answers with JSON answers, and the errors that are its own."""
    return {status: _response(status, {JSON: {"schema": schema}}), **problems(*errors, *EVERYWHERE)}


def applied(kind: str) -> Responses:
    """What PUT of a document answers."""
    result = {"Helios-Result": {"schema": {"enum": ["created", "configured", "unchanged"]}}}
    preview = {"anyOf": [ref(kind), ref("Preview")]}
    return {
        200: {**_response(200, {JSON: {"schema": preview}}), "headers": _REQUEST_ID | result},
        201: {**_response(201, {JSON: {"schema": ref(kind)}}), "headers": _REQUEST_ID | result},
        **problems(400, 404, 409, *WITH_BODY, *EVERYWHERE, 507),
    }


def stream(*, errors: Iterable[int] = ()) -> Responses:
    """What a stream of server-sent events answers."""
    return {
        200: _response(200, {"text/event-stream": {"schema": ref("StreamEvent")}}),
        **problems(*errors, *EVERYWHERE),
    }


def text(media_type: str, *, errors: Iterable[int] = (), headers: Schema | None = None) -> Responses:
    """What a route that answers with plain text answers."""
    response = _response(200, {media_type: {"schema": {"type": "string"}}})
    response["headers"] = _REQUEST_ID | (headers or {})
    return {200: response, **problems(*errors, *EVERYWHERE)}


def problems(*statuses: int) -> Responses:
    return {status: _response(status, {PROBLEM: {"schema": ref("Problem")}}) for status in sorted(statuses)}


def body(schema: Schema, *, required: bool = True) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its body itself."""
    return {"requestBody": {"required": required, "content": {JSON: {"schema": schema}}}}


def document(app: FastAPI) -> dict[str, Any]:
    """The document of all routes of an app."""
    made = get_openapi(title="HELIOS", version=__version__, routes=app.routes, description=schemas.DESCRIPTION)
    components = made.setdefault("components", {})
    own = components.get("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        own.pop(unused, None)
    components["schemas"] = own | schemas.components()
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            _finish(operation, ROUTES[method.upper(), path])
    return made


def _finish(operation: dict[str, Any], permission: Permission) -> None:
    operation["security"] = [] if permission is Permission.OPEN else [{"bearer": []}]
    operation["x-helios-permission"] = permission.value
    if permission is Permission.AGENT:
        given = operation["responses"]
        given |= {str(key): value for key, value in problems(400, 404, 409, 413, *EVERYWHERE, 507).items()}


def _response(status: int, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, "content": content, "headers": _REQUEST_ID}
