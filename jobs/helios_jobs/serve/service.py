"""The service behind the endpoint: takes requests in, makes one video after another, forgets nothing."""

import contextlib
import fcntl
import logging
import math
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from helios.errors import ForbiddenError, NoSpaceError, NotFoundError
from helios_jobs.serve.config import ServeConfig
from helios_jobs.serve.errors import BusyError, NotReadyError
from helios_jobs.serve.media import encode_video
from helios_jobs.serve.records import Consent, Failure, KeyUse, Records, VideoRequest, VideoState, VideoStatus, new_id

log = logging.getLogger(__name__)

_MAX_ATTEMPTS = 3
_PROGRESS_INTERVAL_S = 0.5
_OWNER_POLL_S = 0.2
_UNFINISHED = frozenset({VideoStatus.QUEUED, VideoStatus.IN_PROGRESS})


class Pipeline(Protocol):
    """What is asked of `helios_model.pipeline.AvatarPipeline`."""

    @property
    def size(self) -> int: ...

    @property
    def fps(self) -> int: ...

    @property
    def sample_rate(self) -> int: ...

    def generate(
        self, reference_frames: NDArray[np.uint8], audio: NDArray[np.float32], *, prompt: str, seed: int
    ) -> Iterator[NDArray[np.uint8]]: ...


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model in memory, and the names it answers to: the served one and the version it was resolved to."""

    pipeline: Pipeline
    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A checked request that has no id yet.

    Attributes:
        reference: uint8 [F, size, size, 3] at the pipeline's size.
        speech: float32 [n] mono at the pipeline's sample rate.
    """

    reference: NDArray[np.uint8]
    speech: NDArray[np.float32]
    reference_sha256: str
    consent_id: str
    prompt: str
    seed: int | None
    text: str | None = None
    voice: str | None = None


class _GoneError(Exception):
    """The video was deleted, or the replica is told to stop, while it was being made."""


class VideoService:
    """Requests in, videos out, one at a time in the order they came.

    One replica owns a folder: the worker holds a lock on it, so that during a roll-over the new replica answers
    requests while the old one finishes, and never makes the same video at the same time.
    """

    def __init__(
        self, *, folder: Path, config: ServeConfig, model: ServedModel, now: Callable[[], float] = time.time
    ) -> None:
        self.config = config
        self.model = model
        self.records = Records(folder)
        self._now = now
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._accepting = threading.Lock()
        self._stopping = threading.Event()
        self._seconds_per_video = 10.0
        self._unfinished = {request.id for request, state in self.records.videos() if state.status in _UNFINISHED}
        self._worker = threading.Thread(target=self._work, name="video-worker", daemon=True)

    def start(self) -> None:
        self._worker.start()

    def stop(self, *, timeout_s: float = 30.0) -> None:
        """End after the current chunk; the video in work goes back to the queue for the next replica."""
        self._stopping.set()
        self._queue.put(None)
        if self._worker.is_alive():
            self._worker.join(timeout_s)

    @property
    def healthy(self) -> bool:
        return self._worker.is_alive()

    # --- what the endpoint asks -------------------------------------------------------------------------------

    def check_room(self) -> None:
        """Raises `BusyError` where the queue is full; asked before an upload is read, and again when it is in."""
        if len(self._unfinished) >= self.config.max_queued:
            raise BusyError(
                f"{len(self._unfinished)} videos are waiting, which is as many as this service takes",
                retry_after=max(1, math.ceil(self._seconds_per_video)),
            )

    def check_consent(self, consent_id: str, reference_sha256: str) -> None:
        """Raises `ForbiddenError` unless the consent is on record, has not expired and covers this clip."""
        hint = "record it with POST /v1/consents and send its id as consent_id"
        if not consent_id:
            raise ForbiddenError("a video of a person needs a consent record", hint=hint)
        try:
            consent = self.records.consent(consent_id)
        except NotFoundError:
            raise ForbiddenError(f"there is no consent record {consent_id[:64]!r}", hint=hint) from None
        if consent.expires_at is not None and consent.expires_at <= self._now():
            raise ForbiddenError(f"consent {consent.id} has expired", hint=hint)
        if consent.reference_sha256 not in {None, reference_sha256}:
            raise ForbiddenError(f"consent {consent.id} is for another reference clip", hint=hint)

    def known_use(self, key: str | None, digest: str) -> VideoRequest | None:
        """The video an Idempotency-Key has already made. Raises `NotReadyError` where it was used otherwise."""
        use = self.records.key_use(key) if key else None
        if use is None:
            return None
        if use.digest != digest:
            raise NotReadyError(
                "this Idempotency-Key was used for another request", reason="idempotency_key_reused", param=None
            )
        return self.records.video(use.video)[0]

    def accept(self, draft: Draft, *, key: str | None = None, digest: str = "") -> VideoRequest:
        """Store the request and queue it; with the same key and content again, return the first one.

        Raises:
            BusyError: the queue is full.
            NoSpaceError: the disk is.
        """
        with self._accepting:
            known = self.known_use(key, digest)
            if known is not None:
                return known
            self.check_room()
            request = VideoRequest(
                id=new_id("video"),
                created_at=self._now(),
                model=self.model.name,
                model_version=self.model.version,
                prompt=draft.prompt,
                seed=secrets.randbelow(2**31) if draft.seed is None else draft.seed,
                seconds=len(draft.speech) / self.model.pipeline.sample_rate,
                consent_id=draft.consent_id,
                reference_sha256=draft.reference_sha256,
                text=draft.text,
                voice=draft.voice,
            )
            if key:  # first: a key of no video counts as unused, but a video without its key would be made twice
                self.records.remember_key(key, KeyUse(video=request.id, digest=digest))
            self.records.add_video(request, draft.reference, draft.speech)
            self._unfinished.add(request.id)
        self._queue.put(request.id)
        return request

    def delete(self, video_id: str) -> None:
        """Remove the video and its media; one in work ends at its next chunk. Raises `NotFoundError`."""
        self.records.delete_video(video_id)
        self._unfinished.discard(video_id)

    def content(self, video_id: str) -> Path:
        """The finished file. Raises `NotFoundError`, or `NotReadyError` where there is none (yet)."""
        _, state = self.records.video(video_id)
        if state.status is VideoStatus.FAILED:
            why = state.error.message if state.error else "no reason was recorded"
            raise NotReadyError(f"video {video_id} failed: {why}", reason="video_failed")
        if state.status is not VideoStatus.COMPLETED:
            raise NotReadyError(f"video {video_id} is {state.status.value}, not completed", reason="video_not_ready")
        return self.records.content(video_id)

    def add_consent(
        self,
        *,
        subject: str,
        granted_by: str,
        statement: str,
        reference_sha256: str | None = None,
        expires_at: float | None = None,
    ) -> Consent:
        consent = Consent(
            id=new_id("consent"),
            created_at=self._now(),
            subject=subject,
            granted_by=granted_by,
            statement=statement,
            reference_sha256=reference_sha256,
            expires_at=expires_at,
        )
        self.records.add_consent(consent)
        return consent

    def withdraw_consent(self, consent_id: str) -> bool:
        """No further video can use it. A record that a video was made under is kept, as expired; returns whether."""
        consent = self.records.consent(consent_id)
        used = any(request.consent_id == consent_id for request, _ in self.records.videos())
        if used:
            self.records.add_consent(consent.model_copy(update={"expires_at": self._now()}))
        else:
            self.records.remove_consent(consent_id)
        return used

    # --- the worker -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        with self._ownership() as owned:
            if not owned:
                return
            self.records.clear_incoming()
            done: set[str] = set()
            for request, state in self.records.videos():
                if state.status in _UNFINISHED:
                    self._unfinished.add(request.id)
                    self._queue.put(request.id)
            while (video_id := self._queue.get()) is not None and not self._stopping.is_set():
                if video_id not in done:  # a request taken in before ownership is queued twice
                    done.add(video_id)
                    self._make(video_id)

    @contextlib.contextmanager
    def _ownership(self) -> Iterator[bool]:
        """Wait until no other replica works on the folder; a dead one's lock is gone with it."""
        with (self.records.folder / "owner.lock").open("w") as lock:
            while not self._stopping.is_set():
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._stopping.wait(_OWNER_POLL_S)
                else:
                    yield True
                    return
            yield False

    def _make(self, video_id: str) -> None:
        try:
            request, state = self.records.video(video_id)
            state = state.model_copy(
                update={
                    "status": VideoStatus.IN_PROGRESS,
                    "progress": 0,
                    "attempts": state.attempts + 1,
                    "started_at": self._now(),
                }
            )
            if state.attempts > _MAX_ATTEMPTS:
                message = f"the replica ended {_MAX_ATTEMPTS} times while making this video"
                self._fail(video_id, state, "replica_lost", message)
                return
            self.records.set_state(video_id, state)
            self._generate(request, state)
        except (_GoneError, NotFoundError, FileNotFoundError):
            log.info("video %s was deleted or put back", video_id)
        except (OSError, ValueError):
            log.exception("the state of video %s cannot be read or written; the next replica tries again", video_id)
        finally:
            self._unfinished.discard(video_id)

    def _generate(self, request: VideoRequest, state: VideoState) -> None:
        pipeline = self.model.pipeline
        try:
            reference, speech = self.records.inputs(request.id)
            chunks = pipeline.generate(reference, speech, prompt=request.prompt, seed=request.seed)
            encode_video(
                self.records.content(request.id),
                self._watched(chunks, request, state),
                fps=pipeline.fps,
                audio=speech,
                sample_rate=pipeline.sample_rate,
                size=self.config.output_pixels,
            )
        except _GoneError:
            raise
        except NoSpaceError as error:
            self._fail(request.id, state, "no_space", error.message)
        except Exception:  # a video that fails, however it does, must not stop the ones behind it
            self._leave_if_gone(request)
            log.exception("video %s failed", request.id)
            self._fail(request.id, state, "generation_failed", "the model could not make this video")
        else:
            self._complete(request, state)

    def _watched(
        self, chunks: Iterator[NDArray[np.uint8]], request: VideoRequest, state: VideoState
    ) -> Iterator[NDArray[np.uint8]]:
        """Pass chunks on, tell the progress, and end early where nobody wants the video any more."""
        total = math.ceil(request.seconds * self.model.pipeline.fps)
        made, told = 0, self._now()
        for chunk in chunks:
            made += len(chunk)
            self._leave_if_gone(request)
            if self._stopping.is_set():
                self.records.set_state(request.id, VideoState(attempts=state.attempts - 1))
                raise _GoneError
            if self._now() - told >= _PROGRESS_INTERVAL_S:
                told = self._now()
                percent = min(99, 100 * made // max(total, 1))
                self.records.set_state(request.id, state.model_copy(update={"progress": percent}))
            yield chunk

    def _leave_if_gone(self, request: VideoRequest) -> None:
        if not self.records.has_video(request.id):
            raise _GoneError

    def _complete(self, request: VideoRequest, state: VideoState) -> None:
        now = self._now()
        self._seconds_per_video += 0.3 * (now - (state.started_at or now) - self._seconds_per_video)
        update: dict[str, Any] = {"status": VideoStatus.COMPLETED, "progress": 100, "completed_at": now}
        self.records.set_state(request.id, state.model_copy(update=update))

    def _fail(self, video_id: str, state: VideoState, code: str, message: str) -> None:
        update = {
            "status": VideoStatus.FAILED,
            "error": Failure(code=code, message=message),
            "completed_at": self._now(),
        }
        self.records.set_state(video_id, state.model_copy(update=update))
