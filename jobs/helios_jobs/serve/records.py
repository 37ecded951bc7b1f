"""What the service remembers: one folder a video, one file a consent. Every write is whole or not there.

<folder>/videos/<id>/   request.json, status.json, reference.npy, speech.npy, then content.mp4
<folder>/consents/      <id>.json
<folder>/keys/          <sha256 of an Idempotency-Key>.json
<folder>/incoming/      uploads in flight, one folder a replica; those of ended replicas are removed
"""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from helios.errors import NoSpaceError, NotFoundError

log = logging.getLogger(__name__)


class VideoStatus(StrEnum):
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class VideoRequest(_Record):
    """What was asked, after everything about it was checked; never changes."""

    id: str
    created_at: float
    model: str
    model_version: str
    prompt: str
    seed: int
    seconds: float
    consent_id: str
    reference_sha256: str
    text: str | None = None
    voice: str | None = None


class Failure(_Record):
    code: str
    message: str


class VideoState(_Record):
    """How far it is. `attempts` counts starts, so that a video that ends its replica every time is given up."""

    status: VideoStatus = VideoStatus.QUEUED
    progress: int = 0
    """Percent."""
    attempts: int = 0
    started_at: float | None = None
    completed_at: float | None = None
    error: Failure | None = None


class Consent(_Record):
    """A person's permission to use their likeness and voice.

    Attributes:
        reference_sha256: hex digest of the one reference clip it is for; None for any clip.
        expires_at: seconds since the epoch; None for never.
    """

    id: str
    created_at: float
    subject: str
    granted_by: str
    statement: str
    reference_sha256: str | None = None
    expires_at: float | None = None


class KeyUse(_Record):
    """What an Idempotency-Key was used for."""

    video: str
    digest: str


class Records:
    """The durable side of the service. Nothing is cached: a restarted or second replica sees the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.incoming = folder / "incoming" / secrets.token_hex(8)
        for path in (folder / "videos", folder / "consents", folder / "keys", self.incoming):
            path.mkdir(parents=True, exist_ok=True)
        self._alive = self.incoming.with_suffix(".lock").open("w")  # the lock goes with the process, however it ends
        fcntl.flock(self._alive, fcntl.LOCK_EX)

    def clear_incoming(self) -> None:
        """Throw away what replicas that have ended were receiving."""
        for lock in self.incoming.parent.glob("*.lock"):
            with contextlib.suppress(BlockingIOError), lock.open() as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)

    def add_video(self, request: VideoRequest, reference: NDArray[np.uint8], speech: NDArray[np.float32]) -> None:
        """Store a queued video; it appears in one rename, complete.

        Args:
            request: names the folder.
            reference: uint8 [F, size, size, 3].
            speech: float32 [n] mono.

        Raises:
            NoSpaceError: the disk is full; nothing is left behind.
        """
        draft = self.incoming / request.id
        draft.mkdir()
        try:
            with _space_for("the request"):
                np.save(draft / "reference.npy", reference, allow_pickle=False)
                np.save(draft / "speech.npy", speech, allow_pickle=False)
                write_atomically(draft / "request.json", request.model_dump_json())
                write_atomically(draft / "status.json", VideoState().model_dump_json())
                draft.rename(self._video(request.id))
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def video(self, video_id: str) -> tuple[VideoRequest, VideoState]:
        """Raises `NotFoundError`."""
        folder = self._video(video_id)
        try:
            request = VideoRequest.model_validate_json((folder / "request.json").read_bytes())
            return request, VideoState.model_validate_json((folder / "status.json").read_bytes())
        except FileNotFoundError:
            raise NotFoundError("video", video_id) from None

    def has_video(self, video_id: str) -> bool:
        return self._video(video_id).exists()

    def videos(self) -> list[tuple[VideoRequest, VideoState]]:
        """All there are, oldest first."""
        found = list(self._readable_videos())
        return sorted(found, key=lambda pair: (pair[0].created_at, pair[0].id))

    def inputs(self, video_id: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Reference frames uint8 [F, size, size, 3] and speech float32 [n]."""
        folder = self._video(video_id)
        return (
            np.load(folder / "reference.npy", allow_pickle=False),
            np.load(folder / "speech.npy", allow_pickle=False),
        )

    def content(self, video_id: str) -> Path:
        return self._video(video_id) / "content.mp4"

    def set_state(self, video_id: str, state: VideoState) -> None:
        """Raises `FileNotFoundError` where the video was deleted meanwhile."""
        write_atomically(self._video(video_id) / "status.json", state.model_dump_json())

    def delete_video(self, video_id: str) -> None:
        """Gone in one rename, then removed. Raises `NotFoundError`."""
        grave = self.incoming / f"deleted-{secrets.token_hex(8)}"
        try:
            self._video(video_id).rename(grave)
        except FileNotFoundError:
            raise NotFoundError("video", video_id) from None
        shutil.rmtree(grave, ignore_errors=True)

    def add_consent(self, consent: Consent) -> None:
        """Raises `NoSpaceError`."""
        with _space_for("the consent"):
            write_atomically(self.folder / "consents" / f"{consent.id}.json", consent.model_dump_json())

    def consent(self, consent_id: str) -> Consent:
        """Raises `NotFoundError`."""
        path = self.folder / "consents" / f"{consent_id}.json"
        if not _is_id(consent_id, "consent") or not path.exists():
            raise NotFoundError("consent", consent_id)
        return Consent.model_validate_json(path.read_bytes())

    def remove_consent(self, consent_id: str) -> None:
        (self.folder / "consents" / f"{self.consent(consent_id).id}.json").unlink(missing_ok=True)

    def consents(self) -> list[Consent]:
        """All there are, oldest first."""
        found = [Consent.model_validate_json(path.read_bytes()) for path in self.folder.glob("consents/*.json")]
        return sorted(found, key=lambda consent: consent.created_at)

    def key_use(self, key: str) -> KeyUse | None:
        """What `key` was used for, unless that video was deleted."""
        path = self._key(key)
        use = KeyUse.model_validate_json(path.read_bytes()) if path.exists() else None
        return use if use is not None and self._video(use.video).exists() else None

    def remember_key(self, key: str, use: KeyUse) -> None:
        """Raises `NoSpaceError`."""
        with _space_for("the request"):
            write_atomically(self._key(key), use.model_dump_json())

    def _video(self, video_id: str) -> Path:
        if not _is_id(video_id, "video"):
            raise NotFoundError("video", video_id)
        return self.folder / "videos" / video_id

    def _key(self, key: str) -> Path:
        return self.folder / "keys" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def _readable_videos(self) -> Iterator[tuple[VideoRequest, VideoState]]:
        for folder in (self.folder / "videos").iterdir():
            try:
                yield self.video(folder.name)
            except NotFoundError:  # deleted while the folder was listed
                continue
            except ValidationError:  # a damaged disk; one lost video must not take the others with it
                log.exception("the record of %s cannot be read and is left out", folder.name)


def new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(12)}"


def _is_id(text: str, kind: str) -> bool:
    return re.fullmatch(rf"{kind}_[0-9a-f]{{24}}", text) is not None


@contextlib.contextmanager
def _space_for(what: str) -> Iterator[None]:
    """Tells a full disk from other faults of it."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise NoSpaceError(f"no space left to store {what}") from error
        raise


def write_atomically(path: Path, text: str) -> None:
    """Write through a synced temporary file in the same folder, so that a reader or a crash sees old or new, whole."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
