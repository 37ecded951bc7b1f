"""The CLI's way to the control plane: find it, call it, and give its errors back as our own tree."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from helios.errors import (
    ConflictError,
    EngineError,
    ForbiddenError,
    HeliosError,
    InputError,
    NoSpaceError,
    NotFoundError,
    PortInUseError,
    Problem,
    SpecError,
    TooLargeError,
    UnavailableError,
    WorkFailedError,
    nearest,
)

if TYPE_CHECKING:
    import httpx  # 0.15 s to import: only a command that calls the API pays for it

NOT_RUNNING = "HELIOS is not running here; start it with `helios up`"
KINDS: Mapping[str, str] = {
    "Cell": "cells",
    "Tenant": "tenants",
    "Job": "jobs",
    "Curriculum": "curricula",
    "Service": "services",
}
"""Plural (as in URLs) by kind; written out so that `helios --help` need not import the spec."""

_PLAIN_ERRORS: Mapping[str, type[HeliosError]] = {
    cls.__name__.removesuffix("Error"): cls
    for cls in (
        InputError,
        ConflictError,
        ForbiddenError,
        TooLargeError,
        PortInUseError,
        UnavailableError,
        EngineError,
        NoSpaceError,
        WorkFailedError,
    )
}

Object = dict[str, Any]


def find_home(start: Path | None = None) -> Path | None:
    """Return the state folder: HELIOS_HOME, else the nearest `.helios` from `start` upwards, else None."""
    if configured := os.environ.get("HELIOS_HOME"):
        return Path(configured)
    here = (start or Path.cwd()).resolve()
    return next((folder / ".helios" for folder in (here, *here.parents) if (folder / ".helios").is_dir()), None)


def kind_of(word: str) -> str:
    """Return the kind that a user means by `job`, `jobs`, `Jobs`, ...; raises `NotFoundError`."""
    for kind, plural in KINDS.items():
        if word.casefold() in {kind.casefold(), plural, f"{kind.casefold()}s"}:
            return kind
    near = nearest(word, [*KINDS.values(), *KINDS])
    raise NotFoundError("kind", word, known=[near], hint=f"kinds are: {', '.join(KINDS.values())}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API is and what opens it; `home` is None where HELIOS_API names a control plane elsewhere."""

    url: str
    token: str
    home: Path | None = None

    @classmethod
    def find(cls) -> Self:
        """Find the control plane; raises `UnavailableError` where none was started here."""
        if url := os.environ.get("HELIOS_API"):
            return cls(url=url.rstrip("/"), token=os.environ.get("HELIOS_TOKEN", ""))
        home = find_home()
        if home is None:
            raise UnavailableError(NOT_RUNNING)
        try:
            ports = json.loads((home / "ports.json").read_text())
            token = os.environ.get("HELIOS_TOKEN") or (home / "token").read_text().strip()
            return cls(url=f"http://127.0.0.1:{int(ports['api'])}", token=token, home=home)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UnavailableError(NOT_RUNNING) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnavailableError(
                f"{home} cannot be read: {error}", hint="`helios up` writes it anew; HELIOS_HOME names another folder"
            ) from error


@dataclass(frozen=True, slots=True)
class Applied:
    """An object as stored, and what storing it did: `created`, `configured` or `unchanged`."""

    object: Object
    result: str


@dataclass(frozen=True, slots=True)
class LogPart:
    """Log bytes and where to go on; `ended` says that nothing will follow."""

    data: bytes
    epoch: int
    offset: int
    ended: bool


class Client:
    """One connection to the API. Every method raises from the tree in `helios.errors` and nothing else."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = 30.0) -> None:
        import httpx

        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._http = httpx.Client(
            base_url=endpoint.url,
            headers={"Authorization": f"Bearer {endpoint.token}"},
            timeout=timeout_s,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def apply(self, document: Mapping[str, Any]) -> Applied:
        kind, name = document["kind"], document["metadata"]["name"]
        response = self._request("PUT", _path(kind, name), json=document)
        return Applied(object=response.json(), result=response.headers.get("Helios-Result", "applied"))

    def get(self, kind: str, name: str) -> Object:
        return self._json("GET", _path(kind, name))

    def list(self, kind: str, *, selector: str = "") -> Iterator[Object]:
        """All objects of a kind, page by page."""
        params: dict[str, Any] = {"labelSelector": selector} if selector else {}
        while True:
            page = self._json("GET", f"/v1/{KINDS[kind]}", params=params)
            yield from page["items"]
            if not page.get("next"):
                return
            params["after"] = page["next"]

    def delete(self, kind: str, name: str) -> Object:
        return self._json("DELETE", _path(kind, name))

    def action(self, kind: str, name: str, verb: str) -> Object:
        """POST an action: `cancel`, `redeploy`."""
        return self._json("POST", _path(kind, name, verb))

    def rerun(self, kind: str, name: str, *, everything: bool) -> Object:
        """Try ended work again: from what failed, or everything as a new run."""
        params = {"everything": str(everything).lower()}
        return self._json("POST", _path(kind, name, "rerun"), params=params)

    def explain(self, kind: str, name: str) -> Object:
        return self._json("GET", _path(kind, name, "explain"))

    def events(self, *, kind: str = "", name: str = "", after: int = 0, wait_s: float = 0.0) -> Object:
        params = {"kind": kind, "name": name, "after": after, "wait": wait_s}
        return self._json("GET", "/v1/events", params=params, wait_s=wait_s)

    def status(self) -> Object:
        return self._json("GET", "/v1/status")

    def logs(self, job: str, *, epoch: int, offset: int, wait_s: float) -> LogPart:
        """Log bytes of one start of a job; epoch 0 means its first."""
        params = {"epoch": epoch, "offset": offset, "wait": wait_s}
        response = self._request("GET", _path("Job", job, "logs"), params=params, wait_s=wait_s)
        return LogPart(
            data=response.content,
            epoch=int(response.headers["Helios-Log-Epoch"]),
            offset=int(response.headers["Helios-Log-Offset"]),
            ended=response.headers["Helios-Log-Ended"] == "true",
        )

    def _json(self, method: str, path: str, **options: Any) -> Object:
        try:
            body: Object = self._request(method, path, **options).json()
        except ValueError as error:
            raise UnavailableError(f"what answers at {self.endpoint.url} is not HELIOS") from error
        return body

    def _request(self, method: str, path: str, *, wait_s: float = 0.0, **options: Any) -> "httpx.Response":
        import httpx

        try:
            response = self._http.request(method, path, timeout=self._timeout_s + wait_s, **options)
        except httpx.TimeoutException as error:
            raise UnavailableError(f"HELIOS at {self.endpoint.url} did not answer in {self._timeout_s:g} s") from error
        except httpx.ConnectError as error:
            if self.endpoint.home is not None:
                raise UnavailableError(NOT_RUNNING) from error
            raise UnavailableError(f"HELIOS at {self.endpoint.url} does not answer: {error}") from error
        except httpx.TransportError as error:
            raise UnavailableError(f"the connection to HELIOS at {self.endpoint.url} broke: {error}") from error
        except httpx.InvalidURL as error:
            raise InputError(f"HELIOS_API is not a URL: {self.endpoint.url!r} ({error})") from error
        if response.status_code >= 400:
            raise error_of(response.status_code, _problem_body(response))
        return response


def connect() -> Client:
    """Find the control plane and return a client of it; raises `UnavailableError` where there is none."""
    return Client(Endpoint.find())


def error_of(status: int, problem: Mapping[str, Any]) -> HeliosError:
    """Rebuild the error that the API described in an RFC 9457 problem document."""
    code = str(problem.get("code", ""))
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
    hint = str(problem.get("hint", ""))
    if code == "NotFound" and "name" in problem:
        near = str(problem.get("nearest", ""))
        return NotFoundError(str(problem["what"]), str(problem["name"]), known=[near] if near else [], hint=hint)
    if code == "Spec":
        return SpecError([Problem(**item) for item in problem.get("problems", [])], hint=hint)
    if code in _PLAIN_ERRORS:
        return _PLAIN_ERRORS[code](detail, hint=hint)
    if status in {502, 503, 504}:
        return UnavailableError(detail, hint=hint)
    return (InputError if status < 500 else HeliosError)(detail, hint=hint)


def _path(kind: str, name: str, *rest: str) -> str:
    return "/".join((f"/v1/{KINDS[kind]}", quote(name, safe=""), *rest))


def _problem_body(response: "httpx.Response") -> Mapping[str, Any]:
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return {"detail": f"HTTP {response.status_code} from {response.url}, which is not HELIOS"}
    body: Mapping[str, Any] = response.json()
    return body
