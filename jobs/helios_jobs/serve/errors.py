"""What the endpoint refuses, below the tree of helios.errors, and the OpenAI-style envelope it is told in.

InputError
├── RequestError          a field of the request is missing, unknown or wrong          HTTP 400
└── MediaError            an uploaded file is not what it must be                      HTTP 400
TooLargeError
└── LimitError            media or request over a limit of the service's config        HTTP 413
ConflictError
└── NotReadyError         the video is not (or never will be) there                    HTTP 409
UnavailableError
├── BusyError             the queue is full; carries when to try again                 HTTP 429
└── ProgramMissingError   a program the service starts is not installed                HTTP 503
"""

import re
from typing import Any, ClassVar

from helios.errors import ConflictError, HeliosError, InputError, TooLargeError, UnavailableError


class _Reasoned:
    """Gives an error a finer `code` than its class, and the request field it is about."""

    def __init__(self, message: str, *, reason: str, param: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)  # type: ignore[call-arg]  # the sibling in the MRO is a HeliosError
        self.reason = reason
        self.param = param


class RequestError(_Reasoned, InputError):
    pass


class MediaError(_Reasoned, InputError):
    pass


class LimitError(_Reasoned, TooLargeError):
    pass


class NotReadyError(_Reasoned, ConflictError):
    pass


class ProgramMissingError(_Reasoned, UnavailableError):
    pass


class BusyError(_Reasoned, UnavailableError):
    http_status: ClassVar[int] = 429

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, reason="queue_full")
        self.retry_after = retry_after
        """Seconds."""


def error_type(status: int) -> str:
    """The envelope's `type` for an HTTP status, in the words OpenAI clients know."""
    known = {403: "permission_error", 404: "not_found_error", 409: "conflict_error", 429: "rate_limit_error"}
    return known.get(status, "invalid_request_error" if status < 500 else "server_error")


def envelope(status: int, message: str, code: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": error_type(status), "param": param, "code": code}}


def envelope_of(error: HeliosError) -> dict[str, Any]:
    """The envelope of an error raised on purpose; its hint joins the message."""
    code = getattr(error, "reason", None) or re.sub(r"(?<!^)(?=[A-Z])", "_", error.code).lower()
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    return envelope(error.http_status, message, code, getattr(error, "param", None))
