"""JSON columns: fast for what nearly always comes, exact for the rest.

orjson reads integers beyond 64 bits as floats and writes neither them nor lone surrogates; the standard library does
both. Its text is told from orjson's by the blank after a colon, so that each is read by its writer's rules.
"""

import json
from typing import Any

import orjson


def dumps(value: Any) -> str:
    """Compact JSON; NaN and infinities become null, which is all that JSON has for them."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value)


def loads(text: str | bytes) -> Any:
    spaced = b'": ' in text if isinstance(text, bytes) else '": ' in text
    return json.loads(text) if spaced else orjson.loads(text)
