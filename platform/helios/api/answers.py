"""What leaves the API when all is well: JSON of our own documents, written once and never validated again."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from helios.errors import InputError, Problem, SpecError

JSON = "application/json"


class Answer(Response):
    """A JSON answer."""

    media_type = JSON

    def render(self, content: Any) -> bytes:
        return encode(content)


class UnsupportedMediaTypeError(InputError):
    """A body in another notation than JSON."""

    http_status = 415


async def read_json(request: Request) -> Any:
    """The request's body.

    Raises:
        UnsupportedMediaTypeError: it says that it is something else than JSON.
        SpecError: it is not JSON, with the line and column where it stops to be.
    """
    stated = request.headers.get("content-type", JSON)
    if stated.partition(";")[0].strip().lower() not in {JSON, "*/*"}:
        raise UnsupportedMediaTypeError(
            f"the body is {stated[:100]!r}; expected {JSON}", hint="`helios apply` takes YAML and sends JSON"
        )
    return parse_json(await request.body())


def parse_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        message = "expected a JSON document, got nothing" if not body.strip() else f"is not JSON: {error.msg}"
        raise SpecError([Problem(message, file="<body>", line=error.lineno, column=error.colno)]) from error


def encode(content: Any) -> bytes:
    return orjson.dumps(content)
