"""Errors as RFC 9457 problem documents: the one place where the API turns exceptions into answers."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from helios.api.answers import Answer
from helios.errors import HeliosError, NotFoundError, Problem, SpecError, TooLargeError, UnauthorizedError

MEDIA_TYPE = "application/problem+json"
Methods = Callable[[str], Iterable[str]]
"""The methods that a path answers to."""


class ProblemAnswer(Answer):
    media_type = MEDIA_TYPE


def problem(
    status: int,
    *,
    code: str,
    detail: str,
    hint: str = "",
    problems: Iterable[Problem] = (),
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, str] | None = None,
) -> ProblemAnswer:
    """Build a problem document; `members` are added to those that all have."""
    body: dict[str, Any] = {
        "type": f"urn:helios:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": _printable(detail),
        "hint": hint,
        "problems": [{key: _clean(value) for key, value in asdict(item).items()} for item in problems],
        "requestId": structlog.contextvars.get_contextvars().get("request_id", ""),
        **{key: _printable(value) for key, value in (members or {}).items()},
    }
    return ProblemAnswer(body, status_code=status, headers=dict(headers or {}))


def of_error(error: HeliosError) -> ProblemAnswer:
    """Describe one of our own errors with all it carries."""
    members: dict[str, str] = {}
    if isinstance(error, NotFoundError):
        members = {"what": error.what, "name": error.name, "nearest": error.nearest}
    return problem(
        error.http_status,
        code=error.code,
        detail=error.message,
        hint=error.hint,
        problems=error.problems if isinstance(error, SpecError) else (),
        headers=_headers(error),
        members=members,
    )


def install(app: FastAPI, *, methods: Methods, refused: Callable[[Request, HeliosError], Awaitable[None]]) -> None:
    """Make every error of an app leave as a problem document, and none with a traceback.

    Args:
        app: whose errors.
        methods: what a path answers to, for `Allow`.
        refused: told of each of our own errors before it leaves, for the audit log.
    """

    async def helios(request: Request, error: Exception) -> ProblemAnswer:
        assert isinstance(error, HeliosError)
        await refused(request, error)
        return of_error(error)

    async def http(request: Request, error: Exception) -> ProblemAnswer:
        assert isinstance(error, HTTPException)
        path = request.url.path
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = ", ".join(sorted(methods(path)))
            detail = f"{path} does not take {request.method}; it takes {allowed}"
            return problem(405, code="MethodNotAllowed", detail=detail, headers={"Allow": allowed})
        if error.status_code == HTTPStatus.NOT_FOUND:
            return problem(404, code="NoRoute", detail=f"no route is at {path}", hint="see GET /v1/openapi.json")
        return problem(error.status_code, code="Http", detail=str(error.detail), headers=error.headers)

    app.add_exception_handler(HeliosError, helios)
    app.add_exception_handler(RequestValidationError, _parameters)
    app.add_exception_handler(HTTPException, http)


async def _parameters(_: Request, error: Exception) -> ProblemAnswer:
    assert isinstance(error, RequestValidationError)
    problems = [
        Problem(message=item["msg"], field=".".join(str(part) for part in item["loc"]), value=_shown(item.get("input")))
        for item in error.errors()
    ]
    return problem(422, code="Spec", detail="\n".join(str(item) for item in problems), problems=problems)


def _headers(error: HeliosError) -> dict[str, str]:
    if isinstance(error, UnauthorizedError):
        return {"WWW-Authenticate": "Bearer"}
    return {"Connection": "close"} if isinstance(error, TooLargeError) else {}


def _shown(value: object) -> str:
    return _printable(str(value)[:80])


def _clean(value: object) -> object:
    return _printable(value) if isinstance(value, str) else value


def _printable(text: str) -> str:
    """JSON can escape half a surrogate pair, which an answer cannot hold."""
    return text.encode(errors="backslashreplace").decode()
