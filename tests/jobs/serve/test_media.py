"""Writing MP4."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from helios.errors import NoSpaceError
from helios_jobs.serve.media import encode_video

FULL = Path("/dev/full")


def _frames(count: int, height: int = 32, width: int = 32) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 60, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("samples", [640, 700, 12_345, 16_000, 48_000])
def test_video_is_as_long_as_the_speech_within_one_frame(tmp_path: Path, samples: int) -> None:
    """Container, picture and sound tell a duration within 0.04 s of the speech, encoder priming included."""
    path = tmp_path / "out.mp4"
    count = -(-samples // 640)
    assert encode_video(path, _frames(count), audio=np.zeros(samples, np.float32), size=256) == count
    with av.open(str(path)) as container:
        assert container.duration is not None
        assert abs(container.duration / av.time_base - samples / 16_000) <= 0.04
        picture, speech = container.streams.video[0], container.streams.audio[0]
        assert (picture.codec_context.name, picture.width, picture.height) == ("h264", 256, 256)
        assert (speech.codec_context.name, speech.codec_context.sample_rate) == ("aac", 48_000)
        assert picture.average_rate == 25
        assert (picture.start_time, speech.start_time) == (0, 0)
        assert len(list(container.decode(video=0))) == count


def test_speech_in_the_file_is_in_time_with_what_was_given(tmp_path: Path) -> None:
    """A click at 0.5 s is heard at 0.5 s, within 2 ms, also where frames come in chunks."""
    audio = np.zeros(16_000, np.float32)
    audio[8_000:8_016] = 0.9
    frames = _frames(25)
    for name, given in (("whole", frames), ("chunks", iter(np.array_split(frames, 4)))):
        encode_video(tmp_path / f"{name}.mp4", given, audio=audio)
        with av.open(str(tmp_path / f"{name}.mp4")) as container:
            heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        assert abs(int(np.abs(heard).argmax()) / 48_000 - 0.5) < 0.002


def test_colours_and_odd_sizes_survive(tmp_path: Path) -> None:
    """A flat red of 47 x 33 comes back as that red, at even sizes, without a sound track."""
    encode_video(tmp_path / "red.mp4", np.full((5, 33, 47, 3), (200, 30, 60), np.uint8))
    with av.open(str(tmp_path / "red.mp4")) as container:
        assert not container.streams.audio
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height) == (48, 34)
    assert np.abs(frame.to_ndarray(format="rgb24")[10, 10].astype(int) - (200, 30, 60)).max() <= 4


def test_index_comes_first_so_that_players_can_start(tmp_path: Path) -> None:
    """The moov box stands before the media."""
    encode_video(tmp_path / "fast.mp4", _frames(25), audio=np.zeros(16_000, np.float32))
    data = (tmp_path / "fast.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_nothing_is_left_of_a_video_that_fails(tmp_path: Path) -> None:
    """Frames that stop with an error, wrong frames and no frames leave no file."""

    def broken() -> Iterator[NDArray[np.uint8]]:
        yield _frames(3)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        encode_video(tmp_path / "x.mp4", broken())
    with pytest.raises(ValueError, match="uint8"):
        encode_video(tmp_path / "x.mp4", _frames(3).astype(np.float32))
    with pytest.raises(ValueError, match="at least one frame"):
        encode_video(tmp_path / "x.mp4", iter(()))
    with pytest.raises(ValueError, match="at least one frame"):
        encode_video(tmp_path / "x.mp4", _frames(0))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full to stand in for a full disk")
def test_full_disk_is_said_as_such(tmp_path: Path) -> None:
    """A write that finds no space raises NoSpaceError, and leaves nothing."""
    (tmp_path / ".full.mp4.partial").symlink_to(FULL)
    with pytest.raises(NoSpaceError, match="no space"):
        encode_video(tmp_path / "full.mp4", _frames(50), audio=np.zeros(32_000, np.float32))
    assert not list(tmp_path.iterdir())


def test_sound_with_nan_and_overload_is_written(tmp_path: Path) -> None:
    """NaN becomes silence and peaks are clipped."""
    audio = np.full(16_000, np.nan, np.float32)
    audio[:100] = 50.0
    encode_video(tmp_path / "nan.mp4", _frames(25), audio=audio)
    with av.open(str(tmp_path / "nan.mp4")) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert np.isfinite(heard).all()
    assert np.abs(heard[24_000:]).max() < 0.01
