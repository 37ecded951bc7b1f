"""Errors as RFC 9457 problem documents: the one place where the API turns exceptions into answers."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from helios.errors import HeliosError, NotFoundError, Problem, SpecError

MEDIA_TYPE = "application/problem+json"

_log = logging.getLogger(__name__)


def problem(
    status: int,
    *,
    code: str,
    detail: str,
    hint: str = "",
    problems: Iterable[Problem] = (),
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Build a problem document; `members` are added to those that all have."""
    body: dict[str, Any] = {
        "type": f"urn:helios:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "hint": hint,
        "problems": [asdict(item) for item in problems],
        **(members or {}),
    }
    return JSONResponse(body, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def of_error(error: HeliosError) -> JSONResponse:
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
        members=members,
    )


def install(app: FastAPI) -> None:
    """Make every error of an app leave as a problem document, and none with a traceback."""
    app.add_exception_handler(HeliosError, _helios)
    app.add_exception_handler(RequestValidationError, _parameters)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _defect)


async def _helios(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HeliosError)
    return of_error(error)


async def _parameters(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = [
        Problem(message=item["msg"], field=".".join(str(part) for part in item["loc"]), value=_shown(item.get("input")))
        for item in error.errors()
    ]
    return problem(422, code="Spec", detail="\n".join(str(item) for item in problems), problems=problems)


def _shown(value: object) -> str:
    """Shortened, and always printable: JSON can escape half a surrogate pair, which an answer cannot hold."""
    return str(value)[:80].encode(errors="backslashreplace").decode()


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, code="Http", detail=str(error.detail), headers=error.headers)


async def _defect(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(500, code="Internal", detail="HELIOS has a defect here; the server's log has the details")
