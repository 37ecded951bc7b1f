"""Writing MP4: H.264 video and AAC speech, as long as the speech to within one frame.

Stands on av and numpy alone, so that training previews and benchmarks can use it without the rest of the server.
"""

import contextlib
import errno
import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from helios.errors import NoSpaceError

VIDEO_CODEC = "libx264"  # docs/decisions/0010-h264-encoder.md
AUDIO_CODEC = "aac"
SOUND_RATE = 48_000


def encode_video(
    path: Path,
    frames: NDArray[np.uint8] | Iterable[NDArray[np.uint8]],
    *,
    fps: int = 25,
    audio: NDArray[np.float32] | None = None,
    sample_rate: int = 16_000,
    size: int | None = None,
) -> int:
    """Write `path` (MP4, moov first) and return the number of frames written; nothing is left where it fails.

    Args:
        path: written whole or not at all.
        frames: uint8 [F, H, W, 3] RGB, or chunks of that shape one after another; a chunk is encoded as it comes.
        fps: frames a second.
        audio: float32 [n] mono in [-1, 1]; NaN becomes silence. None writes no sound track.
        sample_rate: of `audio`, Hz.
        size: pixels of the shorter side after Lanczos scaling; None keeps the size, rounded up to even numbers.

    Raises:
        ValueError: no frames, or frames of another shape or type.
        NoSpaceError: the disk is full.
    """
    chunks = iter((frames,) if isinstance(frames, np.ndarray) else frames)
    first = next(chunks, None)
    if first is None:
        raise ValueError("a video needs at least one frame")
    partial = path.with_name(f".{path.name}.partial")
    try:
        sized = _even_size(first, size)
        written = _write(
            partial, itertools.chain((first,), chunks), fps=fps, audio=audio, sample_rate=sample_rate, size=sized
        )
        partial.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise NoSpaceError(f"no space left to write {path.name}") from error
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
    return written


def _even_size(chunk: NDArray[np.uint8], size: int | None) -> tuple[int, int]:
    """Width and height to encode: even, because 4:2:0 chroma halves both."""
    height, width = chunk.shape[1:3]
    scale = 1.0 if size is None else size / min(height, width)
    return 2 * -(-round(width * scale) // 2), 2 * -(-round(height * scale) // 2)


def _write(
    path: Path,
    chunks: Iterable[NDArray[np.uint8]],
    *,
    fps: int,
    audio: NDArray[np.float32] | None,
    sample_rate: int,
    size: tuple[int, int],
) -> int:
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = _video_stream(container, fps, size)
        sound = None if audio is None else _Sound(container, audio, sample_rate)
        written = 0
        for chunk in chunks:
            if chunk.dtype != np.uint8 or chunk.ndim != 4 or chunk.shape[3] != 3:
                raise ValueError(f"frames must be uint8 [F, H, W, 3], not {chunk.dtype} {list(chunk.shape)}")
            for frame in chunk:
                _encode_frame(container, video, frame, Fraction(written, fps))
                written += 1
            if sound is not None:
                sound.encode_until(written / fps)  # interleaved, so that the muxer holds little back
        if not written:
            raise ValueError("a video needs at least one frame")
        container.mux(video.encode(None))
        if sound is not None:
            sound.finish()
    return written


def _video_stream(container: OutputContainer, fps: int, size: tuple[int, int]) -> VideoStream:
    stream = container.add_stream(VIDEO_CODEC, rate=fps, options={"crf": "18", "preset": "veryfast"})
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.thread_count = 1  # a replica's cores belong to the model
    # Untagged video is shown with whatever matrix a player guesses; say which one was used.
    context = stream.codec_context
    context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    return stream


def _encode_frame(container: OutputContainer, stream: VideoStream, pixels: NDArray[np.uint8], at: Fraction) -> None:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
        width=stream.width,
        height=stream.height,
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.LANCZOS | Interpolation.ACCURATE_RND,
    )
    frame.color_primaries, frame.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    frame.pts, frame.time_base = at.numerator, Fraction(1, at.denominator)
    container.mux(stream.encode(frame))


class _Sound:
    """The sound track: mono AAC at 48 kHz, written as far as the video has come."""

    def __init__(self, container: OutputContainer, audio: NDArray[np.float32], sample_rate: int) -> None:
        stream = container.add_stream(AUDIO_CODEC, rate=SOUND_RATE, layout="mono")
        assert isinstance(stream, AudioStream)
        self._container = container
        self._stream = stream
        self._samples = np.clip(np.nan_to_num(audio.astype(np.float32)), -1.0, 1.0)
        self._rate = sample_rate
        self._done = 0
        self._resampled = 0
        self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=SOUND_RATE)

    def encode_until(self, seconds: float) -> None:
        end = min(len(self._samples), round(seconds * self._rate))
        if end <= self._done:
            return
        frame = av.AudioFrame.from_ndarray(self._samples[None, self._done : end].copy(), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._done, Fraction(1, self._rate)
        self._done = end
        self._encode(self._resampler.resample(frame))

    def finish(self) -> None:
        self.encode_until(len(self._samples) / self._rate)
        self._encode(self._resampler.resample(None))
        self._container.mux(self._stream.encode(None))

    def _encode(self, frames: Iterable[Any]) -> None:
        for frame in _renumbered(frames, self._resampled):
            self._resampled += frame.samples
            self._container.mux(self._stream.encode(frame))


def _renumbered(frames: Iterable[Any], start: int) -> Iterator[Any]:
    """The resampler's own time stamps jump by its delay; the encoder wants them gapless."""
    for frame in frames:
        frame.pts, frame.time_base = start, Fraction(1, SOUND_RATE)
        start += frame.samples
        yield frame
