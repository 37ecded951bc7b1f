"""Every error HELIOS raises on purpose, in one tree.

HeliosError
├── InputError            what the caller gave is wrong                      exit 2  HTTP 400
│   ├── SpecError         a YAML document; carries every problem found       exit 2  HTTP 422
│   ├── NotFoundError     a name that nothing has; carries the nearest       exit 2  HTTP 404
│   ├── ConflictError     the object changed or exists with other content    exit 2  HTTP 409
│   │   ├── FencedError   the writer was replaced: another holder, a later agent  exit 2  HTTP 409
│   │   └── CompactedError   history that far back is forgotten              exit 2  HTTP 409
│   ├── UnauthorizedError no token, or one that is unknown, expired or revoked  exit 2  HTTP 401
│   ├── TooManyError      over a rate limit; says when to try again          exit 2  HTTP 429
│   ├── ForbiddenError    the caller may not do this                         exit 2  HTTP 403
│   ├── TooLargeError     over a documented limit                            exit 2  HTTP 413
│   └── PortInUseError    a fixed port that something else holds             exit 2  HTTP 400
├── UnavailableError      a part of HELIOS does not answer                   exit 3  HTTP 503
├── EngineError           Ray, MLflow, Pulumi or a child program failed      exit 4  HTTP 502
├── NoSpaceError          the disk cannot hold what must be written          exit 5  HTTP 507
└── WorkFailedError       the job, curriculum or video itself failed         exit 6  HTTP 500

The CLI and the API translate once, at the edge; nothing between catches these to re-word them.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar


class HeliosError(Exception):
    """Root of the tree.

    Attributes:
        hint: what the reader can do about it, one sentence, or empty.
        exit_code: what the CLI exits with.
        http_status: what the API answers with.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def code(self) -> str:
        """The stable name of this kind of error, as clients see it (`NotFound`, `Spec`, ...)."""
        return type(self).__name__.removesuffix("Error")


class InputError(HeliosError):
    exit_code = 2
    http_status = 400


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in one document.

    Attributes:
        field: dotted path in the document (`spec.nodePools[0].instanceType`), empty for the whole document.
        line: 1-based; 0 where there is no text (a document that came as JSON).
        column: 1-based; 0 likewise.
        value: the offending value as written, shortened.
        nearest: the nearest valid name, or empty.
    """

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    field: str = ""
    value: str = ""
    nearest: str = ""

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file or "<document>", self.line, self.column) if part)
        field = f" {self.field}:" if self.field else ""
        nearest = f" (did you mean {self.nearest!r}?)" if self.nearest else ""
        return f"{where}:{field} {self.message}{nearest}"


class SpecError(InputError):
    """One or more documents are not valid; nothing of them was applied."""

    http_status = 422

    def __init__(self, problems: Iterable[Problem], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems), hint=hint)


class NotFoundError(InputError):
    http_status = 404

    def __init__(self, what: str, name: str, *, known: Iterable[str] = (), hint: str = "") -> None:
        near = nearest(name, known)
        super().__init__(f"no {what} is named {name!r}" + (f" (did you mean {near!r}?)" if near else ""), hint=hint)
        self.what = what
        self.name = name
        self.nearest = near


class ConflictError(InputError):
    http_status = 409


class FencedError(ConflictError):
    pass


class CompactedError(ConflictError):
    pass


class UnauthorizedError(InputError):
    http_status = 401


class ForbiddenError(InputError):
    http_status = 403


class TooManyError(InputError):
    http_status = 429


class TooLargeError(InputError):
    http_status = 413


class PortInUseError(InputError):
    pass


class UnavailableError(HeliosError):
    exit_code = 3
    http_status = 503


class EngineError(HeliosError):
    exit_code = 4
    http_status = 502


class NoSpaceError(HeliosError):
    exit_code = 5
    http_status = 507


class WorkFailedError(HeliosError):
    exit_code = 6
    http_status = 500


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name closest to `name`, or an empty string where none is close."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else ""
