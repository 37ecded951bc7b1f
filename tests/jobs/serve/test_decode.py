"""Reading user media within limits."""

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helios_jobs.serve import decode
from helios_jobs.serve.decode import MediaLimits, read_reference, read_speech
from helios_jobs.serve.errors import LimitError, MediaError

LIMITS = MediaLimits(video_pixels=640 * 480, video_seconds=5.0, audio_seconds=6.0)
MEDIA = Path(__file__).parents[4] / "shared" / "data" / "media"
Make = Callable[..., bytes]


def _file(tmp_path: Path, data: bytes, name: str = "upload") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def test_reference_is_the_centre_square_at_25_fps(tmp_path: Path, make_clip: Make) -> None:
    """A 4:3 clip of 30 fps becomes square frames on the 25 fps grid, the bright quarter in its place."""
    frames = read_reference(_file(tmp_path, make_clip(frames=30, fps=30)), LIMITS, size=32, max_frames=100)
    assert frames.shape == (25, 32, 32, 3)
    assert frames.dtype == np.uint8
    assert frames[0, 4, 4].min() > 200
    assert frames[0, 28, 4].max() < 50
    assert frames[0, 4, 28].max() < 50


def test_reference_takes_no_more_than_asked(tmp_path: Path, make_clip: Make) -> None:
    assert len(read_reference(_file(tmp_path, make_clip(frames=60)), LIMITS, size=16, max_frames=7)) == 7


@pytest.mark.parametrize(("width", "height"), [(65, 47), (3, 3), (320, 16)])
def test_odd_and_extreme_sizes_are_read(tmp_path: Path, make_clip: Make, width: int, height: int) -> None:
    """Any picture size within the limit gives square frames."""
    path = _file(tmp_path, make_clip(width=width, height=height, frames=4, codec="ffv1", container="matroska"))
    assert read_reference(path, LIMITS, size=32, max_frames=2).shape == (2, 32, 32, 3)


def test_variable_frame_rate_holds_the_latest_frame(tmp_path: Path, make_clip: Make) -> None:
    """Frames at 0, 0.04 and 1.0 s fill one second of the grid."""
    frames = read_reference(_file(tmp_path, make_clip(frames=3, times=[0, 1, 25])), LIMITS, size=8, max_frames=100)
    assert len(frames) == 26


@pytest.mark.parametrize(("degrees", "bright"), [(90, (4, 28)), (180, (28, 28)), (270, (28, 4))])
def test_rotation_metadata_is_applied(tmp_path: Path, make_clip: Make, degrees: int, bright: tuple[int, int]) -> None:
    """A phone's clip marked as turned clockwise stands upright: the bright quarter moves clockwise with it."""
    one, turn = 0x10000, {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    matrix = struct.pack(">9i", turn[0] * one, turn[1] * one, 0, turn[2] * one, turn[3] * one, 0, 0, 0, 0x40000000)
    data = bytearray(make_clip(width=64, height=64, frames=3))
    at = data.index(b"tkhd") + 4 + 40  # version 0: the display matrix follows 40 bytes of track header
    assert struct.unpack(">9i", data[at : at + 36]) == (one, 0, 0, 0, one, 0, 0, 0, 0x40000000)
    data[at : at + 36] = matrix
    frame = read_reference(_file(tmp_path, bytes(data)), LIMITS, size=32, max_frames=1)[0]
    assert [tuple(map(int, place)) for place in [(4, 4), (4, 28), (28, 4), (28, 28)] if frame[place].min() > 200] == [
        bright
    ]


@pytest.mark.parametrize(
    ("codec", "container", "rate", "channels", "tolerance"),
    [
        ("pcm_s16le", "wav", 8_000, 1, 0),
        ("pcm_f32le", "wav", 96_000, 2, 0),
        ("flac", "flac", 44_100, 2, 0),
        ("libmp3lame", "mp3", 44_100, 2, 2_000),
        ("aac", "ipod", 48_000, 2, 1_100),
        ("libopus", "ogg", 48_000, 1, 400),
    ],
)
def test_speech_is_read_from_any_common_format(
    tmp_path: Path, make_sound: Make, *, codec: str, container: str, rate: int, channels: int, tolerance: int
) -> None:
    """Mono float32 at 16 kHz, as long as the file, with the tone where it was."""
    data = make_sound(seconds=1.5, rate=rate, channels=channels, codec=codec, container=container)
    speech = read_speech(_file(tmp_path, data), LIMITS)
    assert speech.dtype == np.float32
    assert abs(len(speech) - 24_000) <= max(tolerance, 2)
    spectrum = np.abs(np.fft.rfft(speech[4_000:20_000]))
    assert abs(int(spectrum.argmax()) * 16_000 / 16_000 - 440) <= 2


def test_silence_and_nan_are_speech_too(tmp_path: Path, make_sound: Make) -> None:
    """A file of NaN reads as finite samples; silence is not refused."""
    samples = np.zeros(16_000, np.float32)
    samples[5_000:6_000] = np.nan
    data = make_sound(codec="pcm_f32le", samples=samples)
    speech = read_speech(_file(tmp_path, data), LIMITS)
    assert np.isfinite(speech).all()
    assert len(speech) == 16_000


def test_limits_hold_where_headers_lie(tmp_path: Path, make_clip: Make, make_sound: Make) -> None:
    """A long video and a long sound whose headers claim a tenth of a second are refused while they are decoded."""
    video = bytearray(make_clip(frames=200, container="matroska"))
    at = video.index(b"\x44\x89\x88") + 3  # Segment > Info > Duration, a double of milliseconds
    video[at : at + 8] = struct.pack(">d", 100.0)
    with pytest.raises(LimitError, match=r"video_reference: longer than 5 s$"):
        read_reference(_file(tmp_path, bytes(video)), LIMITS, size=8, max_frames=10)
    sound = bytearray(make_sound(seconds=8, codec="flac", container="flac"))
    # STREAMINFO: the lower 32 bits of the number of samples
    sound[22:26] = struct.pack(">I", 1_600)
    with pytest.raises(LimitError, match=r"audio_reference: longer than 6 s$"):
        read_speech(_file(tmp_path, bytes(sound)), LIMITS)


def test_speech_may_be_as_long_as_the_limit(tmp_path: Path, make_sound: Make) -> None:
    """Six seconds are not longer than six seconds, in however many pieces they come."""
    for rate in (16_000, 44_100):
        assert len(read_speech(_file(tmp_path, make_sound(seconds=6, rate=rate)), LIMITS)) == 96_000


def test_a_few_samples_a_second_do_not_fill_the_memory(
    tmp_path: Path, make_sound: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small file that claims one sample a second is refused before its hours of sound are computed."""
    data = bytearray(make_sound(seconds=1, rate=8_000, codec="pcm_s16le", container="matroska"))
    for mark, value in ((b"\x44\x89\x88", 1000.0), (b"\xb5\x88", 1.0)):  # Duration in ms, SamplingFrequency in Hz
        at = data.index(mark) + len(mark)
        data[at : at + 8] = struct.pack(">d", value)
    resampled: list[int] = []
    pieces = decode._pieces

    def watched(resampler: Any, frame: Any) -> Any:
        resampled.append(frame.samples if frame is not None and resampler is not None else 0)
        return pieces(resampler, frame)

    monkeypatch.setattr(decode, "_pieces", watched)
    with pytest.raises(LimitError, match=r"audio_reference: longer than 6 s$"):
        read_speech(_file(tmp_path, bytes(data)), LIMITS)
    assert sum(resampled) == 0


def test_decoding_has_a_time_limit(tmp_path: Path, make_clip: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that would decode for hours is given up when its time is over."""
    monkeypatch.setattr("helios_jobs.serve.decode._DECODE_BUDGET_S", -1.0)
    with pytest.raises(LimitError, match="decoding takes more than"):
        read_reference(_file(tmp_path, make_clip()), LIMITS, size=8, max_frames=4)


def test_torn_and_damaged_files_never_raise_anything_else(tmp_path: Path, make_clip: Make) -> None:
    """Cut or overwritten anywhere, a clip is either read or refused as media."""
    whole = make_clip(frames=20, codec="mpeg4", container="matroska")
    noise = np.random.default_rng(0)
    read = 0
    for cut in range(40):
        data = bytearray(whole[: len(whole) * (cut + 1) // 40])
        for place in noise.integers(0, len(data), cut % 5 * 8):
            data[place] = noise.integers(256)
        for reader in (
            lambda path: read_reference(path, LIMITS, size=8, max_frames=4),
            lambda p: read_speech(p, LIMITS),
        ):
            with contextlib.suppress(MediaError, LimitError):
                read += len(reader(_file(tmp_path, bytes(data)))) > 0
    assert read


@pytest.mark.parametrize(
    "text",
    ["#EXTM3U\n#EXTINF:1,\n{target}\n", "ffconcat version 1.0\nfile {target}\n", "v=0\nm=video 5004 RTP/AVP 96\n"],
)
def test_playlists_cannot_make_the_server_open_files(tmp_path: Path, make_clip: Make, text: str) -> None:
    """A playlist named .mp4 is not followed to another file of the machine."""
    target = _file(tmp_path, make_clip(), "secret.mp4")
    with pytest.raises(MediaError, match="not a video or audio file"):
        read_reference(_file(tmp_path, text.format(target=target).encode()), LIMITS, size=8, max_frames=4)


@pytest.mark.skipif(not MEDIA.exists(), reason="the shared media are not on this machine")
def test_real_clip_and_real_speech_are_read() -> None:
    """120 frames of 29.97 fps become 100 of 25 fps; 11.0 s of 44.1 kHz FLAC become 176,000 samples."""
    frames = read_reference(MEDIA / "carphone.mp4", LIMITS, size=32, max_frames=250)
    assert frames.shape == (100, 32, 32, 3)
    assert 40 < frames.mean() < 180
    longer = MediaLimits(video_pixels=1, video_seconds=1, audio_seconds=20)
    assert len(read_speech(MEDIA / "jfk.flac", longer)) == 176_000
