"""HTTP to the control plane: replicas tried in turn, patience while one takes over, answers as our own errors."""

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from helios import errors
from helios.cli.endpoint import NOT_RUNNING, Endpoint
from helios.errors import HeliosError, InputError, NotFoundError, Problem, SpecError, UnavailableError

if TYPE_CHECKING:
    import httpx  # 0.15 s to import: only a command that calls the API pays for it

PATIENCE_S = 10.0
"""How long a call is tried again: longer than another replica needs to take over."""
CONNECT_S = 5.0
SILENCE_S = 20.0
"""A stream that says nothing for so long, not even that nothing happened, is broken."""
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0
_AWAY = frozenset({502, 503, 504})

_ERRORS: Mapping[str, type[HeliosError]] = {
    cls.__name__.removesuffix("Error"): cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, HeliosError) and not issubclass(cls, SpecError | NotFoundError)
}


class Transport:
    """One connection to a control plane of one or more replicas. Raises from `helios.errors` and nothing else."""

    def __init__(
        self, endpoint: Endpoint, *, timeout_s: float, patience_s: float, notice: Callable[[str], None]
    ) -> None:
        import httpx

        if not endpoint.token.isascii() or not endpoint.token.isprintable():
            raise InputError("the token has characters that no token has", hint="look at HELIOS_TOKEN")
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        # An embedded control plane has no replica: where nothing listens, nothing will.
        self._patience_s = 0.0 if endpoint.home is not None else patience_s
        self._notice = notice
        self._at = 0
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {endpoint.token}"},
            timeout=timeout_s,
            trust_env=False,
            verify=_trusted(endpoint),
        )

    def close(self) -> None:
        self._http.close()

    @property
    def url(self) -> str:
        """The replica that answered last."""
        return self.endpoint.urls[self._at]

    def request(
        self, method: str, path: str, *, repeatable: bool, wait_s: float = 0.0, **options: Any
    ) -> "httpx.Response":
        """Send a request until a replica answers it.

        Args:
            repeatable: whether doing it twice is doing it once; what is not goes again only where it never arrived.
            wait_s: how long the server may hold the answer back.

        Raises:
            UnavailableError: no replica answered for `patience_s`.
        """
        tries = _Tries(self._patience_s)
        while True:
            try:
                response = self._round(tries, method, path, repeatable=repeatable, wait_s=wait_s, **options)
            except _NoAnswerError as failed:
                if failed.arrived and not repeatable:
                    raise failed.error from failed
                if tries.are_first and tries.may_go_on:
                    self._notice("the control plane does not answer; trying again ...")
                if not tries.pause():
                    raise failed.error from failed
                continue
            if response.status_code == 404 and method == "DELETE" and tries.doubtful:
                return response  # a try that nobody answered had done it
            if response.status_code == 429 and tries.pause(_retry_after(response)):
                continue
            if response.status_code >= 400:
                raise _error_of(response)
            return response

    @contextmanager
    def stream(self, path: str, *, params: Mapping[str, Any], headers: Mapping[str, str]) -> "Iterator[httpx.Response]":
        """Open a stream on the first replica that gives one; raises `UnavailableError` also where it breaks."""
        try:
            response = self._opened(path, params=params, headers=headers)
            try:
                with self._translated():
                    yield response
            finally:
                response.close()
        except _NoAnswerError as failed:
            self._next()
            raise failed.error from failed

    def _opened(self, path: str, *, params: Mapping[str, Any], headers: Mapping[str, str]) -> "httpx.Response":
        """Ask the replicas in turn; raises `_NoAnswerError` of the last one."""
        import httpx

        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
        for further in reversed(range(len(self.endpoint.urls))):
            try:
                with self._translated():
                    request = self._http.build_request(
                        "GET", self.url + path, params=params, headers=headers, timeout=timeout
                    )
                    response = self._http.send(request, stream=True)
                    if response.status_code < 400:
                        return response
                    response.read()
            except _NoAnswerError:
                if not further:
                    raise
                self._next()
                continue
            error = _error_of(response)
            if response.status_code not in _AWAY:
                raise error
            if not further:
                raise _NoAnswerError(error, arrived=True)
            self._next()
        raise AssertionError("an endpoint has at least one URL")

    def _round(
        self, tries: "_Tries", method: str, path: str, *, repeatable: bool, wait_s: float, **options: Any
    ) -> "httpx.Response":
        """Ask the replicas in turn, from the one that answered last on."""
        for further in reversed(range(len(self.endpoint.urls))):
            try:
                return self._send(method, path, wait_s=wait_s, **options)
            except _NoAnswerError as failed:
                tries.doubtful |= failed.arrived
                self._next()
                if not further or (failed.arrived and not repeatable):
                    raise
        raise AssertionError("an endpoint has at least one URL")

    def _next(self) -> None:
        self._at = (self._at + 1) % len(self.endpoint.urls)

    def _send(self, method: str, path: str, *, wait_s: float, **options: Any) -> "httpx.Response":
        import httpx

        timeout = httpx.Timeout(self._timeout_s + wait_s, connect=CONNECT_S)
        with self._translated():
            response = self._http.request(method, self.url + path, timeout=timeout, **options)
        if response.status_code in _AWAY:
            raise _NoAnswerError(_error_of(response), arrived=True)
        return response

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import httpx

        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            here = self.endpoint.home is not None
            said = NOT_RUNNING if here else f"HELIOS at {self.url} does not answer: {error}"
            raise _NoAnswerError(UnavailableError(said), arrived=False) from error
        except httpx.TimeoutException as error:
            said = f"HELIOS at {self.url} did not answer in {self._timeout_s:g} s"
            raise _NoAnswerError(UnavailableError(said), arrived=True) from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise InputError(f"HELIOS_API is not a URL: {self.url!r} ({error})") from error
        except httpx.TransportError as error:
            said = f"the connection to HELIOS at {self.url} broke: {error}"
            raise _NoAnswerError(UnavailableError(said), arrived=True) from error


class _NoAnswerError(Exception):
    """No replica's answer: `error` is what to raise for it, `arrived` whether the request may have been carried out."""

    def __init__(self, error: HeliosError, *, arrived: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.arrived = arrived


class _Tries:
    """What is known of the tries of one call; pauses between them grow, and end `patience_s` after the first.

    Attributes:
        doubtful: whether one of them may have been carried out without an answer.
    """

    def __init__(self, patience_s: float) -> None:
        self.doubtful = False
        self.may_go_on = patience_s > 0
        self._patience_s = patience_s
        self._deadline: float | None = None
        self._pause_s = _FIRST_PAUSE_S

    @property
    def are_first(self) -> bool:
        return self._deadline is None

    def pause(self, at_least_s: float = 0.0) -> bool:
        """Sleep until the next try; False, at once, where that would be too late."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._patience_s
        pause = max(at_least_s, self._pause_s)
        if now + pause > self._deadline:
            return False
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        time.sleep(pause)
        return True


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
    if code in _ERRORS:
        return _ERRORS[code](detail, hint=hint)
    if status in _AWAY:
        return UnavailableError(detail, hint=hint)
    return (InputError if status < 500 else HeliosError)(detail, hint=hint)


def _trusted(endpoint: Endpoint) -> "ssl.SSLContext | bool":
    """Raises `InputError` where HELIOS_CA_FILE cannot be read; nothing is read where no TLS is spoken."""
    if not any(url.startswith("https://") for url in endpoint.urls):
        return False
    context = ssl.create_default_context()
    if endpoint.ca_file:
        try:
            context.load_verify_locations(endpoint.ca_file)
        except (OSError, ssl.SSLError) as error:
            message = f"HELIOS_CA_FILE: no certificates can be read from {endpoint.ca_file} ({error})"
            raise InputError(message) from error
    return context


def _error_of(response: "httpx.Response") -> HeliosError:
    return error_of(response.status_code, _problem_body(response))


def _problem_body(response: "httpx.Response") -> Mapping[str, Any]:
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return {"detail": f"HTTP {response.status_code} from {response.url}, which is not HELIOS"}
    body: Mapping[str, Any] = response.json()
    return body


def _retry_after(response: "httpx.Response") -> float:
    """Seconds that a 429 asks for; a form of the header that is not a number asks for none in particular."""
    stated = response.headers.get("retry-after", "")
    return float(stated) if stated.replace(".", "", 1).isdigit() else 0.0
