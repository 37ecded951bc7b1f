"""Nothing that was accepted is lost: not by a full queue, a restart, or a video that fails."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from helios_jobs.serve.http import create_app
from helios_jobs.serve.records import VideoState, VideoStatus
from helios_jobs.serve.service import Draft, VideoService
from helios_model.pipeline import AvatarPipeline

Finished = Callable[..., dict[str, Any]]
MakeService = Callable[..., VideoService]


class GatedPipeline:
    """The real pipeline, which waits at every chunk until it is let through."""

    def __init__(self, pipeline: AvatarPipeline) -> None:
        self._pipeline = pipeline
        self.size, self.fps, self.sample_rate = pipeline.size, pipeline.fps, pipeline.sample_rate
        self.reached = threading.Event()
        self.gate = threading.Event()

    def generate(
        self, reference_frames: NDArray[np.uint8], audio: NDArray[np.float32], *, prompt: str, seed: int
    ) -> Iterator[NDArray[np.uint8]]:
        for chunk in self._pipeline.generate(reference_frames, audio, prompt=prompt, seed=seed):
            self.reached.set()
            assert self.gate.wait(30)
            yield chunk


class BrokenPipeline(GatedPipeline):
    """Fails as a model out of memory does, on clips it is told to."""

    def generate(
        self, reference_frames: NDArray[np.uint8], audio: NDArray[np.float32], *, prompt: str, seed: int
    ) -> Iterator[NDArray[np.uint8]]:
        if prompt == "fail":
            raise RuntimeError("CUDA out of memory at 0xdeadbeef")
        return self._pipeline.generate(reference_frames, audio, prompt=prompt, seed=seed)


def _draft(service: VideoService, *, seconds: float = 1.0, **changes: Any) -> Draft:
    size = service.model.pipeline.size
    given: dict[str, Any] = {
        "reference": np.full((4, size, size, 3), 90, np.uint8),
        "speech": np.zeros(int(16_000 * seconds), np.float32),
        "reference_sha256": "0" * 64,
        "consent_id": "consent_" + "0" * 24,
        "prompt": "",
        "seed": 1,
    }
    return Draft(**{**given, **changes})


def _wait(service: VideoService, video_id: str, *wanted: VideoStatus) -> VideoState:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        _, state = service.records.video(video_id)
        if state.status in (wanted or (VideoStatus.COMPLETED, VideoStatus.FAILED)):
            return state
        time.sleep(0.01)
    raise TimeoutError(str(state))


def test_queue_is_bounded_and_says_when_to_come_back(
    make_service: MakeService, pipeline: AvatarPipeline, clip: bytes, sound: bytes, finished: Finished
) -> None:
    """One more than the queue holds gets a 429 with Retry-After; a repeat of an accepted one still gets its answer."""
    gated = GatedPipeline(pipeline)
    service = make_service(using=gated, maxQueued=2)
    with TestClient(create_app(service)) as client:
        terms = {"subject": "A", "granted_by": "A", "statement": "yes"}
        consent = client.post("/v1/consents", json=terms).json()["id"]

        def post(seed: int) -> Any:
            files = {"video_reference": clip, "audio_reference": sound}
            data = {"consent_id": consent, "seed": str(seed)}
            return client.post("/v1/videos", files=files, data=data, headers={"Idempotency-Key": f"k{seed}"})

        accepted = [post(seed).json()["id"] for seed in range(2)]
        refused = post(2)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        assert post(1).json()["id"] == accepted[1]
        not_there = client.get(f"/v1/videos/{accepted[1]}/content")
        assert (not_there.status_code, not_there.json()["error"]["code"]) == (409, "video_not_ready")
        gated.gate.set()
        assert [finished(client, video_id)["status"] for video_id in accepted] == ["completed", "completed"]
        assert finished(client, post(2).json()["id"])["status"] == "completed"


def test_a_replica_that_dies_while_it_accepts_makes_no_video_twice(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is cut off between key and video, the repeat of the request ends with one video."""

    class DiedError(Exception):
        pass

    def die(*_: object) -> None:
        raise DiedError

    service = make_service()
    for cut in ("remember_key", "add_video"):
        with monkeypatch.context() as patch:
            patch.setattr(service.records, cut, die)
            with pytest.raises(DiedError):
                service.accept(_draft(service), key=cut, digest="d")
        made = service.accept(_draft(service), key=cut, digest="d")
        assert service.accept(_draft(service), key=cut, digest="d").id == made.id
    assert len(service.records.videos()) == 2


def test_replica_that_is_stopped_hands_its_work_on(make_service: MakeService, pipeline: AvatarPipeline) -> None:
    """Stopped in the middle of a video, a replica puts it back; the next one makes it and all behind it, in order."""
    gated = GatedPipeline(pipeline)
    first = make_service(using=gated)
    first.start()
    ids = [first.accept(_draft(first)).id for _ in range(3)]
    assert gated.reached.wait(30)
    threading.Timer(0.05, gated.gate.set).start()
    first.stop()
    states = [first.records.video(video_id)[1] for video_id in ids]
    assert [(state.status, state.attempts) for state in states] == [(VideoStatus.QUEUED, 0)] * 3

    second = make_service()
    second.start()
    done = [_wait(second, video_id) for video_id in ids]
    second.stop()
    assert [state.status for state in done] == [VideoStatus.COMPLETED] * 3
    ended = [state.completed_at or 0 for state in done]
    assert ended == sorted(ended)
    assert all(second.content(video_id).stat().st_size for video_id in ids)


def test_video_in_work_when_a_replica_dies_is_made_again(make_service: MakeService, tmp_path: Path) -> None:
    """What a killed replica left in progress, with half a file, is started over; after three deaths it is given up."""
    service = make_service()
    again, hopeless = (service.accept(_draft(service)).id for _ in range(2))
    for video_id, attempts in ((again, 1), (hopeless, 3)):
        service.records.set_state(video_id, VideoState(status=VideoStatus.IN_PROGRESS, attempts=attempts))
        (tmp_path / "job" / "videos" / video_id / ".content.mp4.partial").write_bytes(b"half")
    incoming = tmp_path / "job" / "incoming"
    (incoming / "dead-replica" / "upload-1").mkdir(parents=True)
    (incoming / "dead-replica.lock").touch()

    next_one = make_service()
    next_one.start()
    assert _wait(next_one, again).status is VideoStatus.COMPLETED
    given_up = _wait(next_one, hopeless)
    next_one.stop()
    assert given_up.error is not None
    assert given_up.error.code == "replica_lost"
    left = {path.name for path in incoming.iterdir() if path.is_dir()}
    assert left == {service.records.incoming.name, next_one.records.incoming.name}  # those of the living stay


def test_damaged_record_takes_no_other_video_with_it(make_service: MakeService, tmp_path: Path) -> None:
    """A record that a broken disk has emptied is left out, and what is behind it is made."""
    service = make_service()
    damaged, whole = (service.accept(_draft(service)).id for _ in range(2))
    (tmp_path / "job" / "videos" / damaged / "status.json").write_text("")
    next_one = make_service()
    next_one.start()
    assert _wait(next_one, whole).status is VideoStatus.COMPLETED
    assert [request.id for request, _ in next_one.records.videos()] == [whole]
    next_one.stop()


def test_two_replicas_never_work_on_the_same_folder(make_service: MakeService, pipeline: AvatarPipeline) -> None:
    """During a roll-over the new replica takes requests in and starts on them when the old one lets go."""
    gated = GatedPipeline(pipeline)
    old, new = make_service(using=gated), make_service()
    old.start()
    running = old.accept(_draft(old)).id
    assert gated.reached.wait(30)
    new.start()
    waiting = new.accept(_draft(new)).id
    with pytest.raises(TimeoutError):
        _until_started(new, waiting)
    gated.gate.set()
    assert _wait(old, running).status is VideoStatus.COMPLETED
    old.stop()
    assert _wait(new, waiting).status is VideoStatus.COMPLETED
    new.stop()


def _until_started(service: VideoService, video_id: str) -> None:
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        if service.records.video(video_id)[1].status is not VideoStatus.QUEUED:
            return
        time.sleep(0.02)
    raise TimeoutError


def test_failed_video_says_so_and_stops_nobody(
    make_service: MakeService, pipeline: AvatarPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    """The failure is on the video, its cause in the log only, and the next video is made."""
    service = make_service(using=BrokenPipeline(pipeline))
    service.start()
    bad, good = (service.accept(_draft(service, prompt=prompt)).id for prompt in ("fail", ""))
    failed, made = _wait(service, bad), _wait(service, good)
    service.stop()
    assert (failed.status, made.status) == (VideoStatus.FAILED, VideoStatus.COMPLETED)
    assert failed.error is not None
    assert failed.error.code == "generation_failed"
    assert "0xdeadbeef" not in json.dumps(failed.model_dump())
    assert "0xdeadbeef" in caplog.text


def test_progress_is_told_and_a_deleted_video_ends(
    make_service: MakeService, pipeline: AvatarPipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Progress rises while chunks come; deleting a video in work frees the worker for the next."""
    monkeypatch.setattr("helios_jobs.serve.service._PROGRESS_INTERVAL_S", 0.0)
    gated = GatedPipeline(pipeline)
    service = make_service(using=gated)
    service.start()
    long, short = (service.accept(_draft(service, seconds=seconds)).id for seconds in (4.0, 0.5))
    assert gated.reached.wait(30)
    seen = service.records.video(long)[1]
    assert (seen.status, seen.progress) == (VideoStatus.IN_PROGRESS, 0)
    service.delete(long)
    gated.gate.set()
    assert _wait(service, short).progress == 100
    service.stop()
    assert [path.name for path in (tmp_path / "job" / "videos").iterdir()] == [short]
