"""Media made on the spot, a tiny real pipeline with random weights, and the application over it."""

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from helios_jobs.serve.config import ServeConfig
from helios_jobs.serve.http import create_app
from helios_jobs.serve.service import ServedModel, VideoService
from helios_model.codec import PatchCodec
from helios_model.config import preset
from helios_model.dit import VideoRefDiT
from helios_model.pipeline import AvatarPipeline, Sampling

DEADLINE_S = 60.0


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., bytes]:
    """Bytes of an MP4: a bright square in the upper left quarter over a dark ground."""

    def make(
        *,
        width: int = 64,
        height: int = 48,
        frames: int = 30,
        fps: int = 25,
        times: list[int] | None = None,
        codec: str = "libx264",
        container: str = "mp4",
    ) -> bytes:
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=container) as output:
            stream: Any = output.add_stream(codec, rate=fps, options={"crf": "1"} if codec == "libx264" else {})
            stream.width, stream.height = width, height
            stream.pix_fmt = "yuv444p" if (width | height) & 1 else "yuv420p"
            stream.thread_count = 1
            picture = np.full((height, width, 3), 20, np.uint8)
            picture[: height // 2, : width // 2] = 230
            for index in range(frames):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = times[index] if times else index
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def make_sound() -> Callable[..., bytes]:
    """Bytes of a sound file with a tone of 440 Hz."""

    def make(
        *,
        seconds: float = 1.0,
        rate: int = 16_000,
        channels: int = 1,
        codec: str = "pcm_s16le",
        container: str = "wav",
        samples: NDArray[np.float32] | None = None,
    ) -> bytes:
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate).astype(np.float32)
        sound = np.repeat((tone if samples is None else samples)[None], channels, axis=0)
        layout = "mono" if channels == 1 else "stereo"
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=container) as output:
            stream: Any = output.add_stream(codec, rate=rate, layout=layout)
            output.start_encoding()
            resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate)
            for start in range(0, sound.shape[1], rate):
                frame = av.AudioFrame.from_ndarray(sound[:, start : start + rate].copy(), format="fltp", layout=layout)
                frame.sample_rate, frame.pts = rate, start
                for piece in resampler.resample(frame):
                    output.mux(stream.encode(piece))
            output.mux(stream.encode(None))
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def clip(make_clip: Callable[..., bytes]) -> bytes:
    return make_clip()


@pytest.fixture(scope="session")
def sound(make_sound: Callable[..., bytes]) -> bytes:
    return make_sound()


@pytest.fixture(scope="session")
def pipeline() -> AvatarPipeline:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = preset("micro")
    codec = PatchCodec(config.channels)
    codec.fit(torch.rand(8, 5, config.frame_size, config.frame_size, 3) * 2 - 1)
    model = VideoRefDiT(config)
    for weight in model.parameters():  # an untrained head is all zeros, and every picture of it is grey
        torch.nn.init.normal_(weight, std=0.1)
    return AvatarPipeline(model, codec, Sampling(steps=2))


@pytest.fixture(scope="session")
def bundle(pipeline: AvatarPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny-random"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def make_service(pipeline: AvatarPipeline, tmp_path: Path) -> Callable[..., VideoService]:
    """A service on the test's one folder; arguments are `spec.config`, and `using` another pipeline."""

    def make(*, using: Any = None, **config: Any) -> VideoService:
        model = ServedModel(using or pipeline, "tiny-random", "7")
        return VideoService(folder=tmp_path / "job", config=ServeConfig.model_validate(config), model=model)

    return make


@pytest.fixture
def client(make_service: Callable[..., VideoService]) -> Iterator[TestClient]:
    service = make_service(maxUploadBytes="2Mi", maxVideoDuration="5s", maxAudioDuration="6s", maxVideoPixels=320 * 240)
    with TestClient(create_app(service), raise_server_exceptions=False) as running:
        yield running


@pytest.fixture
def consent(client: TestClient) -> str:
    answer = client.post("/v1/consents", json={"subject": "A", "granted_by": "A", "statement": "I agree."})
    return str(answer.json()["id"])


@pytest.fixture
def finished() -> Callable[..., dict[str, Any]]:
    """Poll a video until it is completed or failed."""

    def wait(client: Any, video_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            answer = client.get(f"/v1/videos/{video_id}")
            video: dict[str, Any] = answer.json() if answer.status_code == 200 else {"status": answer.text}
            if video["status"] in {"completed", "failed"}:
                return video
            time.sleep(0.02)
        raise TimeoutError(json.dumps(video))

    return wait
