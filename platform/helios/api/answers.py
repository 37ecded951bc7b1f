"""What leaves the API when all is well: JSON of our own documents, written once and never validated again."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from helios.errors import InputError, Problem, SpecError
from helios.store import Record

JSON = "application/json"
MOST_RENDERED = 20_000
LARGEST_RENDERED = 16 * 1024
"""Bytes; what is larger (a cell of hundreds of nodes) is seldom asked for and would fill the memory."""
_rendered: dict[tuple[str, int], bytes] = {}
"""Documents by uid and version. Shared by threads: a lookup or a store of one entry is atomic."""


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


def rendered(record: Record) -> orjson.Fragment:
    """A record's document as it stands in an answer; a version that is listed or watched by many is written once."""
    key = (record.uid, record.resource_version)
    found = _rendered.get(key)
    if found is None:
        found = encode(record.document())
        if len(_rendered) >= MOST_RENDERED:
            _rendered.clear()
        if len(found) <= LARGEST_RENDERED:
            _rendered[key] = found
    return orjson.Fragment(found)
