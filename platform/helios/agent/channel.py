"""The agent's way to a control plane elsewhere: outbound HTTPS, with the cell's token. Nothing connects to a cell."""

import gzip
import logging
import ssl
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import quote

import httpx

from helios import __version__, wire
from helios.errors import (
    EngineError,
    ForbiddenError,
    HeliosError,
    InputError,
    NotFoundError,
    SpecError,
    UnauthorizedError,
    UnavailableError,
)
from helios.ports import Desired, Launch, LaunchStatus, NodeObservation, Report, Session

CONNECT_S = 5.0
ANSWER_S = 10.0
"""How long an answer may take, beyond the wait that was asked for: a replica that hangs is left for the next one long
before its cell counts as silent."""
MAX_WAIT_S = 30.0
"""Longest poll that the API takes."""
PACK_FROM_BYTES = 4096
SKEW_S = 30.0
"""Clocks further apart than this are told of."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_log = logging.getLogger(__name__)
_PLAIN: dict[str, type[HeliosError]] = {"NotFound": InputError, "Spec": InputError}
"""Codes whose own errors carry more than a message, where an answer came without it."""


class HttpChannel:
    """`AgentChannel` over HTTP. Every failure is an error of our tree; trying again is its caller's business.

    Args:
        url: where the control plane answers (`https://helios.example:8600`); several replicas, separated by commas,
            are used in turn: the next one where one does not answer.
        token: the cell's own.
        ca_file: certificates to trust besides the machine's; TLS is always verified.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        ca_file: str = "",
        answer_s: float = ANSWER_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Raises `InputError` for what is no URL, and for certificates that cannot be read."""
        self._urls = [one.strip().rstrip("/") for one in url.split(",")]
        self._at = 0
        self._answer_s = answer_s
        self._launches: dict[str, dict[wire.Key, Launch]] = {}
        self.skew_s: float | None = None
        """The server's clock less ours, seconds, to the nearest one; None before the first answer."""
        for one in self._urls:
            _check_url(one)
        try:
            self._http = httpx.Client(
                headers={"Authorization": f"Bearer {token}", "User-Agent": f"helios-agent/{__version__}"},
                timeout=httpx.Timeout(answer_s, connect=CONNECT_S),
                verify=_trusted(ca_file),
                # No proxy leads back to this machine.
                trust_env=not all(httpx.URL(one).host in _LOOPBACK for one in self._urls),
                transport=transport,
            )
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise InputError(f"the control plane's address or token cannot be used: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    @property
    def url(self) -> str:
        """The replica that is asked now."""
        return self._urls[self._at]

    def desired(self, cell: str) -> Desired:
        """What the cell is to run now."""
        return self._desired(cell, known="", timeout=0.0)

    def wait(self, cell: str, known: Desired, timeout: float) -> Desired:
        """Return `desired(cell)` as soon as it differs from `known`, or after `timeout` seconds (30 at most)."""
        return self._desired(cell, known=wire.digest(known), timeout=min(timeout, MAX_WAIT_S))

    def report(
        self,
        cell: str,
        nodes: Sequence[NodeObservation] | None,
        statuses: Sequence[LaunchStatus] = (),
        *,
        session: Session = Session(),  # noqa: B008  # frozen
    ) -> None:
        """Say what the cell has and what lives there."""
        said = Report(cell, None if nodes is None else tuple(nodes), tuple(statuses), session)
        body, headers = wire.report_bytes(said), {"Content-Type": "application/json"}
        if len(body) >= PACK_FROM_BYTES:
            body, headers["Content-Encoding"] = gzip.compress(body, compresslevel=1), "gzip"
        self._request("POST", _path(cell, "report"), content=body, headers=headers)

    def push_log(self, cell: str, uid: str, epoch: int, *, offset: int, data: bytes, ended: bool) -> None:
        """Hand in log bytes that are wanted."""
        params = {"offset": offset, "ended": str(ended).lower()}
        headers = {"Content-Type": "application/octet-stream"}
        self._request("PUT", _path(cell, "logs", uid, str(epoch)), params=params, content=data, headers=headers)

    def document(self, cell: str) -> dict[str, Any]:
        """The cell as the control plane has it. Raises like the rest."""
        answer = self._json(self._request("POST", _path(cell, "desired"), json={"document": True}))
        document = answer.get("cell")
        if not isinstance(document, dict):
            raise EngineError(f"{self.url} answered without the cell's document")
        return document

    def _desired(self, cell: str, *, known: str, timeout: float) -> Desired:
        have = self._launches.get(cell, {})
        asked = {"known": known, "have": [list(key) for key in have], "wait": timeout}
        answer = self._json(self._request("POST", _path(cell, "desired"), json=asked, wait_s=timeout))
        try:
            desired = wire.desired_from_json(answer, have=have)
        except InputError as error:
            self._launches.pop(cell, None)  # what the two believe that the other has may differ: begin anew
            raise EngineError(f"{self.url} answered what cannot be read: {error.message}") from error
        self._launches[cell] = {(launch.uid, launch.epoch): launch for launch in desired.launches}
        return desired

    def _request(self, method: str, path: str, *, wait_s: float = 0.0, **options: Any) -> httpx.Response:
        at = self._at
        try:
            return self._ask(self._urls[at], method, path, wait_s=wait_s, **options)
        except UnavailableError:
            if self._at == at:  # else another thread has gone on to the next one already
                self._at = (at + 1) % len(self._urls)
            raise

    def _ask(self, url: str, method: str, path: str, *, wait_s: float, **options: Any) -> httpx.Response:
        limit = httpx.Timeout(self._answer_s + wait_s, connect=CONNECT_S)
        try:
            response = self._http.request(method, url + path, timeout=limit, **options)
        except httpx.TimeoutException as error:
            raise UnavailableError(f"the control plane at {url} did not answer in time") from error
        except httpx.TransportError as error:
            raise UnavailableError(f"the control plane at {url} cannot be reached: {error}") from error
        except httpx.HTTPError as error:
            raise UnavailableError(f"{url} answered what is not HTTP: {error}") from error
        self._compare_clocks(response)
        if response.is_success:
            return response
        raise error_of(response.status_code, _problem(response), url=url)

    def _json(self, response: httpx.Response) -> dict[str, Any]:
        try:
            data = response.json()
        except ValueError as error:
            raise UnavailableError(f"what answers at {self.url} is not HELIOS") from error
        if not isinstance(data, dict):
            raise UnavailableError(f"what answers at {self.url} is not HELIOS")
        return data

    def _compare_clocks(self, response: httpx.Response) -> None:
        try:
            date = parsedate_to_datetime(response.headers["date"])
        except (KeyError, ValueError):
            return  # a proxy may leave it out; the control plane compares clocks, too
        skew = date.timestamp() - time.time()
        if (abs(skew) > SKEW_S) != (abs(self.skew_s or 0.0) > SKEW_S):
            if abs(skew) > SKEW_S:
                _log.warning("the clock of this machine is %+.0f s from the control plane's; set one of them", -skew)
            else:
                _log.info("the clock of this machine agrees with the control plane's again")
        self.skew_s = float(round(skew))


def error_of(status: int, problem: Mapping[str, Any], *, url: str) -> HeliosError:
    """The error that a problem document (RFC 9457) describes; the status decides where it is not one of ours."""
    code = str(problem.get("code", ""))
    detail = str(problem.get("detail") or problem.get("title") or f"{url} answered HTTP {status}")
    hint = str(problem.get("hint", ""))
    if code == "NotFound" and "name" in problem:
        return NotFoundError(str(problem.get("what", "object")), str(problem["name"]), hint=hint)
    known: dict[str, type[HeliosError]] = {kind.__name__.removesuffix("Error"): kind for kind in _tree(HeliosError)}
    found = (known | _PLAIN).get(code)
    if found is not None:
        return found(detail, hint=hint)
    by_status: dict[int, type[HeliosError]] = {401: UnauthorizedError, 403: ForbiddenError}
    if status >= 500 or 300 <= status < 400 or status == 404:
        # A gateway in between, or a server that is not HELIOS (yet): nothing that the agent said is wrong.
        return UnavailableError(f"{url}: {detail}", hint=hint)
    return by_status.get(status, InputError)(detail, hint=hint)


def _tree(root: type[HeliosError]) -> list[type[HeliosError]]:
    """All kinds of error that are made from a message alone."""
    found = [kind for child in root.__subclasses__() for kind in _tree(child)]
    return found if root in {NotFoundError, SpecError} else [root, *found]


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return {}
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _path(cell: str, *rest: str) -> str:
    return "/".join(("/v1/agents", *(quote(part, safe="") for part in (cell, *rest))))


def _check_url(url: str) -> None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InputError(f"{url!r} is not a URL ({error})", hint="it is like https://helios.example:8600") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise InputError(f"{url!r} is not the URL of an API", hint="it is like https://helios.example:8600")


def _trusted(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"{ca_file}: no certificates can be read from it ({error})") from error
    return context
