"""A product developer's client of the talking-avatar endpoint: consents, videos, their content. HTTP only."""

import errno
import hashlib
import mimetypes
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from helios.errors import (
    EngineError,
    ForbiddenError,
    HeliosError,
    InputError,
    NoSpaceError,
    TooLargeError,
    UnavailableError,
    WorkFailedError,
)

if TYPE_CHECKING:
    import httpx  # 0.15 s to import: only a command that calls the endpoint pays for it

Object = dict[str, Any]
MAX_MISSED_POLLS = 20
"""Polls in a row that may fail before a video counts as out of sight: ten seconds, longer than a replica's restart."""


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """What `POST /v1/videos` takes; exactly one of `audio` and `text` is set."""

    reference: Path
    consent_id: str
    audio: Path | None = None
    text: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


class VideoClient:
    """One connection to an endpoint. Raises from the tree in `helios.errors`: 4xx as exit code 2."""

    def __init__(self, url: str) -> None:
        import httpx

        if not url.startswith(("http://", "https://")):
            raise InputError(f"an endpoint is an http:// or https:// URL, not {url!r}")
        self.url = url.rstrip("/")
        # Reading waits long: the answer to an upload comes after its media are decoded and its text is spoken.
        self._http = httpx.Client(base_url=self.url, timeout=httpx.Timeout(30.0, read=300.0), trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def create_consent(self, consent: Mapping[str, str]) -> Object:
        return self._json("POST", "/v1/consents", json=dict(consent))

    def withdraw_consent(self, consent_id: str) -> None:
        self._json("DELETE", f"/v1/consents/{consent_id}")

    def consents(self) -> list[Object]:
        listed: list[Object] = self._json("GET", "/v1/consents")["data"]
        return listed

    def create_video(self, request: VideoRequest) -> Object:
        """Upload the reference and the speech (streamed from disk) and return the queued video."""
        data = {"consent_id": request.consent_id, **request.fields}
        if request.text is not None:
            data["text"] = request.text
        with ExitStack() as stack:
            files = {"video_reference": _upload(stack, request.reference)}
            if request.audio is not None:
                files["audio_reference"] = _upload(stack, request.audio)
            return self._json("POST", "/v1/videos", data=data, files=files)

    def wait(self, video_id: str, *, on_progress: Callable[[Object], None], every_s: float = 0.5) -> Object:
        """Poll until the video is there; raises `WorkFailedError` with the reason where it failed."""
        missed = 0
        while True:
            try:
                video = self._json("GET", f"/v1/videos/{video_id}")
                missed = 0
            except UnavailableError:
                missed += 1
                if missed > MAX_MISSED_POLLS:
                    raise
                time.sleep(every_s)
                continue
            on_progress(video)
            if video["status"] == "completed":
                return video
            if video["status"] == "failed":
                failure = video.get("error") or {}
                raise WorkFailedError(f"video {video_id} failed: {failure.get('message', 'no reason was given')}")
            time.sleep(every_s)

    def download(self, video_id: str, file: BinaryIO) -> int:
        """Stream the MP4 into a file; returns its length in bytes."""
        with self._translated(), self._http.stream("GET", f"/v1/videos/{video_id}/content") as response:
            if response.status_code >= 400:
                response.read()
                raise _error_of(response)
            written = sum(file.write(chunk) for chunk in response.iter_bytes())
        expected = response.headers.get("content-length")
        if expected is not None and int(expected) != written:
            raise UnavailableError(f"the endpoint {self.url} broke off: {written} of {expected} bytes came")
        return written

    def _json(self, method: str, path: str, **options: Any) -> Object:
        with self._translated():
            response = self._http.request(method, path, **options)
        if response.status_code >= 400:
            raise _error_of(response)
        try:
            body: Object = response.json()
        except ValueError as error:
            raise EngineError(f"{self.url}{path} answered with something that is not JSON") from error
        return body

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import httpx

        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise InputError(f"the endpoint is not a URL: {self.url!r} ({error})") from error
        except httpx.TimeoutException as error:
            raise UnavailableError(f"the endpoint {self.url} did not answer in time") from error
        except httpx.TransportError as error:
            raise UnavailableError(
                f"the endpoint {self.url} does not answer: {error}", hint="`helios serve list` shows the endpoints"
            ) from error


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Write beside `path` and rename at the end; on any failure nothing is left behind."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpaceError(f"no space to write {path}") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _upload(stack: ExitStack, path: Path) -> tuple[str, BinaryIO, str]:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return path.name, stack.enter_context(path.open("rb")), kind


def _error_of(response: "httpx.Response") -> HeliosError:
    """Translate the OpenAI-style envelope `{"error": {"message", "type", "param", "code"}}`."""
    status = response.status_code
    try:
        envelope = response.json().get("error") or {}
    except (ValueError, AttributeError):  # a proxy's page
        envelope = {}
    message = str(envelope.get("message") or f"HTTP {status} from {response.url}")
    if (param := envelope.get("param")) and str(param) not in message:
        message = f"{message} ({param})"
    if status == 403:
        hint = "`helios consent create` records one, `helios consent list` shows what there is"
        return ForbiddenError(message, hint=hint)
    if status == 413:
        return TooLargeError(message)
    if status == 507:
        return NoSpaceError(message)
    if status in {429, 502, 503, 504}:
        return UnavailableError(message, hint="try again in a moment")
    return (InputError if status < 500 else EngineError)(message)
