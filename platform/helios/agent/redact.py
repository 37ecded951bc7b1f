"""Keeps secret values out of logs, also where output arrives in pieces."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

MASK = b"[redacted]"
SHORTEST = 4
"""Values shorter than this are left alone: masking every `1` would hide the log and protect nothing."""

SHORTEST_PART = 8
"""The same for parts of a value: a line of a key, a field of a JSON object."""


def maskable(values: Iterable[str]) -> Iterator[bytes]:
    """What must not be seen of these values: each as a whole, its lines, and, where it is JSON, the texts in it."""
    for value in values:
        yield value.encode()
        for part in (*value.splitlines(), *_texts(value)):
            if len(part) >= SHORTEST_PART:
                yield part.encode(errors="backslashreplace")


def _texts(value: str) -> Iterator[str]:
    try:
        inside: list[Any] = [json.loads(value)]
    except (ValueError, RecursionError):
        return
    while inside:
        match inside.pop():
            case str() as text:
                yield text
            case list() as items:
                inside += items
            case dict() as fields:
                inside += fields.values()


class Redactor:
    """Replaces secret values in a stream of bytes; holds back the end of a piece that may be the start of a secret."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._secrets = sorted({secret for secret in secrets if len(secret) >= SHORTEST}, key=len, reverse=True)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what may be written now."""
        data = self.masked(self._held + data)
        keep = self._open_prefix(data)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]

    def flush(self) -> bytes:
        rest, self._held = self._held, b""
        return rest

    def masked(self, data: bytes) -> bytes:
        """Return a whole text without the secrets."""
        for secret in self._secrets:
            data = data.replace(secret, MASK)
        return data

    def _open_prefix(self, data: bytes) -> int:
        """Return the length of the longest end of `data` that a secret begins with."""
        longest = min(len(data), max((len(secret) for secret in self._secrets), default=1) - 1)
        for length in range(longest, 0, -1):
            end = data[-length:]
            if any(secret.startswith(end) for secret in self._secrets):
                return length
        return 0
