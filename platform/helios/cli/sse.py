"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) as the API streams them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from helios.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of a stream.

    Attributes:
        event: its type (`changed`, `gone`, `bookmark`).
        id: where to go on after it, as text; the last one seen where the event has none.
        data: decoded JSON.
    """

    event: str
    id: str
    data: Any


def parse(chunks: Iterable[bytes]) -> Iterator[StreamEvent]:
    """Read events from the bytes of a stream. Raises `UnavailableError` where their data are not JSON."""
    event, last_id = "", ""
    data: list[str] = []
    for line in _lines(chunks):
        if not line:
            if data:
                yield StreamEvent(event or "message", last_id, _decoded("\n".join(data)))
            event, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "id":
            last_id = value
        elif name == "data":
            data.append(value)


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines as the standard ends them; `str.splitlines` would also cut at characters that JSON strings may hold."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.removesuffix(b"\r").decode(errors="replace") for line in whole)


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UnavailableError(f"the stream of the control plane cannot be read: {text[:80]!r}") from error
