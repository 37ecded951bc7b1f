"""Structured logs: one set-up for structlog and for every logger of the standard library.

`logging.getLogger(__name__)` stays the way to log. What is bound with `bound` is on every line of its block; nothing
that looks like a credential gets out.
"""

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

Format = Literal["console", "json"]
MASK = "[redacted]"

# Possessive quantifiers try no shorter match where the mask is what follows, so that masking twice is masking once.
_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A token's id is public and says whose it was; what follows it is the secret.
    (re.compile(r"\b(hls_[A-Za-z0-9]+)_[A-Za-z0-9_-]+"), rf"\1_{MASK}"),
    (
        re.compile(
            r"(?i)(authorization[\"']?+\s*+[:=,]\s*+b?+[\"']?+)(?!\[redacted\])[^\s\"',)}\]\\]++(?:\s+[^\s\"',)}\]\\]+)?"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s++(?!\[redacted\])[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {MASK}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"), MASK),
    (re.compile(r"(?i)\b((?:access_|id_|refresh_)?token|password|secret)=(?!\[redacted\])[^\s&\"'\\]+"), rf"\1={MASK}"),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s:/@]+):[^\s@/]+@"), rf"\1:{MASK}@"),
)
_SERVERS = ("uvicorn", "uvicorn.error", "uvicorn.access")


def redact(text: str) -> str:
    """The text without bearer tokens, JWTs, Authorization headers, and passwords in URLs."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def configure(
    *,
    format: Format = "console",  # noqa: A002 - the word of the command line and of every log library
    level: str = "INFO",
    replica: str = "",
    stream: TextIO | None = None,
) -> None:
    """Send everything that is logged to `stream`, one line each; again replaces what was set up before.

    Args:
        format: `console` for people (coloured on a terminal), `json` for collectors: `event`, `level`, `logger`,
            `timestamp` (ISO 8601, UTC), and what is bound.
        level: name of the least level that is shown.
        replica: on every line of this process, whichever thread it comes from; left out where empty.
        stream: standard error where it is not given.

    Raises:
        ValueError: no level has that name.
    """
    stream = stream if stream is not None else sys.stderr
    shared = _shared(replica)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _Handler(stream)
    handler.setFormatter(_formatter(format, stream, shared))
    root = logging.getLogger()
    root.setLevel(level.upper())
    for old in [item for item in root.handlers if isinstance(item, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    for name in _SERVERS:
        # A server that brings its own handlers would print its lines twice, and one of them unredacted.
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Put fields (`request_id`, `job`, `cell`, `replica`) on every line that this block logs; empty ones are left out.

    They follow the block into coroutines and `asyncio.to_thread`, not into threads that it starts by hand.
    """
    with structlog.contextvars.bound_contextvars(**{name: value for name, value in fields.items() if value}):
        yield


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that setting up again finds it."""


def _shared(replica: str) -> list[Processor]:
    def add_replica(_logger: Any, _method: str, event: EventDict) -> EventDict:
        if replica:
            event.setdefault("replica", replica)
        return event

    return [
        structlog.contextvars.merge_contextvars,
        add_replica,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _formatter(form: Format, stream: TextIO, shared: list[Processor]) -> logging.Formatter:
    renderers: list[Processor]
    if form == "json":
        json = structlog.processors.JSONRenderer(default=lambda value: redact(str(value)))
        renderers = [structlog.processors.format_exc_info, _redact_values, json]
    else:
        # Never the pretty tracebacks: they print local variables, and so whatever secrets those hold.
        plain = structlog.dev.plain_traceback
        renderers = [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain), _redact_line]
    foreign: list[Processor] = [*shared, structlog.stdlib.ExtraAdder(), _without_leftovers]
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=foreign, processors=[remove, *renderers])


def _without_leftovers(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """What other handlers left on the record is nobody's extra."""
    for name in ("message", "asctime"):
        event.pop(name, None)
    return event


def _redact_values(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Before it becomes JSON: afterwards a mask could cut an escape in two."""
    return {name: _redacted(value, name) for name, value in event.items()}


def _redact_line(_logger: Any, _method: str, line: Any) -> Any:
    return redact(line)


def _redacted(value: Any, name: str) -> Any:
    if name.lower() == "authorization":
        return MASK
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {str(key): _redacted(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item, "") for item in value]
    return value
