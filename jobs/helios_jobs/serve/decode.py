"""Reading what users upload. Every limit is checked on the header and again on what is really decoded: headers lie."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from helios_jobs.serve.errors import LimitError, MediaError

# Containers that hold media themselves. Playlists (hls, concat, dash, sdp, image sequences) are left out because they
# make the demuxer open other files and addresses of the uploader's choice.
_FORMATS = "mov,mp4,m4a,matroska,webm,avi,mpegts,mpeg,flv,ogg,wav,w64,flac,mp3,aac,aiff,amr,caf"
_MAX_FRAME_RATE = 240
_DECODE_BUDGET_S = 60.0
"""Wall-clock time one track may take: a file within all other limits can still be made to decode for hours."""
_ROUNDING_S = 1e-6
_MIN_SPEECH_S = 0.04  # one frame of video


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """What one upload may hold.

    Attributes:
        video_pixels: width x height of one frame.
    """

    video_pixels: int
    video_seconds: float
    audio_seconds: float


@dataclass(frozen=True, slots=True)
class _Source:
    """One uploaded file and the request field it came in, for messages."""

    path: Path
    param: str

    def error(self, message: str, reason: str) -> MediaError:
        return MediaError(f"{self.param}: {message}", reason=reason, param=self.param)

    def limit(self, message: str, reason: str) -> LimitError:
        return LimitError(f"{self.param}: {message}", reason=reason, param=self.param)

    def open(self) -> InputContainer:
        if not self.path.stat().st_size:
            raise self.error("the file is empty", "empty_file")
        options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
        try:
            return av.open(str(self.path), "r", options=options, metadata_errors="ignore")
        except (av.error.FFmpegError, UnicodeError) as error:
            raise self.error("the file is not a video or audio file that can be read", "unreadable_media") from error


def read_reference(
    path: Path, limits: MediaLimits, *, size: int, fps: int = 25, max_frames: int, param: str = "video_reference"
) -> NDArray[np.uint8]:
    """Decode a reference clip to uint8 RGB [F, size, size, 3] at `fps`, F <= `max_frames`, from the clip's start.

    Upright (rotation metadata applied), square pixels, the centre square, area-averaged down. A clip of variable
    frame rate is put on the `fps` grid by holding the latest frame. The square is not aware of faces.

    Raises:
        MediaError: not a media file, no video in it, or no frame of it can be decoded.
        LimitError: more pixels or seconds than `limits` allow.
    """
    source = _Source(path, param)
    kept: list[NDArray[np.uint8]] = []
    with source.open() as container:
        stream = _video_stream(source, container)
        if stream.codec_context.width * stream.codec_context.height > limits.video_pixels:
            raise _too_many_pixels(source, stream.codec_context, limits)
        _check_length(source, container, stream, limits.video_seconds, "video_too_long")
        stream.codec_context.options = {"max_pixels": str(limits.video_pixels)}
        held: VideoFrame | None = None
        for at, frame in _timed(source, stream, limits):
            while held is not None and len(kept) < max_frames and at > (len(kept) + 0.5) / fps:
                kept.append(_square(held, size, stream))
            held = frame
        if held is not None and len(kept) < max_frames:
            kept.append(_square(held, size, stream))
    if not kept:
        raise source.error("no frame of the video can be decoded", "no_readable_frame")
    return np.stack(kept)


def read_speech(
    path: Path, limits: MediaLimits, *, sample_rate: int = 16_000, param: str = "audio_reference"
) -> NDArray[np.float32]:
    """Decode the first audio track to mono float32 [n] in [-1, 1] at `sample_rate`; NaN becomes silence.

    Raises:
        MediaError: not a media file, no sound in it, or less than one video frame (0.04 s) of it.
        LimitError: more seconds than `limits` allow.
    """
    source = _Source(path, param)
    with source.open() as container:
        if not container.streams.audio:
            raise source.error("there is no sound in the file", "no_audio_stream")
        stream = container.streams.audio[0]
        _check_length(source, container, stream, limits.audio_seconds, "audio_too_long")
        parts = list(_resampled(source, stream, limits, sample_rate))
    if sum(map(len, parts)) < _MIN_SPEECH_S * sample_rate:
        raise source.error("there is no sound to speak with (0 s of audio)", "audio_too_short")
    return np.clip(np.nan_to_num(np.concatenate(parts)), -1.0, 1.0)


def _video_stream(source: _Source, container: InputContainer) -> VideoStream:
    """The first moving picture; an album cover is not one."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise source.error("there is no video in the file", "no_video_stream")


def _check_length(source: _Source, container: InputContainer, stream: Stream, seconds: float, reason: str) -> None:
    claimed = [container.duration / av.time_base] if container.duration else []
    if stream.duration and stream.time_base:
        claimed.append(float(stream.duration * stream.time_base))
    if claimed and min(claimed) > seconds:
        raise source.limit(f"longer than {seconds:g} s ({min(claimed):.1f} s)", reason)


def _too_many_pixels(source: _Source, picture: Any, limits: MediaLimits) -> LimitError:
    return source.limit(
        f"frames of {picture.width} x {picture.height} are over {limits.video_pixels} pixels", "too_many_pixels"
    )


def _decoded(source: _Source, stream: Stream) -> Iterator[Any]:
    """Frames of a stream; packets that cannot be decoded are skipped, and a torn end is an end."""
    container = stream.container
    assert isinstance(container, InputContainer)
    deadline = time.monotonic() + _DECODE_BUDGET_S
    try:
        for packet in container.demux(stream):
            if time.monotonic() > deadline:
                raise source.limit(f"decoding takes more than {_DECODE_BUDGET_S:g} s", "decoding_too_slow")
            try:
                frames: list[Any] = list(packet.decode())
            except av.error.MemoryError as error:
                raise source.error("the decoder asks for more memory than it may have", "unreadable_media") from error
            except av.error.FFmpegError:
                continue
            yield from frames
    except av.error.FFmpegError:
        return


def _timed(source: _Source, stream: VideoStream, limits: MediaLimits) -> Iterator[tuple[float, VideoFrame]]:
    """Frames with seconds since the first one, within the limits."""
    rate = float(stream.average_rate or stream.base_rate or 25) or 25.0
    first: float | None = None
    for count, frame in enumerate(_decoded(source, stream)):
        raw = float(frame.time) if frame.time is not None else count / rate
        first = raw if first is None else first
        at = raw - first
        if frame.width * frame.height > limits.video_pixels:
            raise _too_many_pixels(source, frame, limits)
        if at > limits.video_seconds or count > limits.video_seconds * _MAX_FRAME_RATE:
            raise source.limit(f"longer than {limits.video_seconds:g} s", "video_too_long")
        yield at, frame


def _square(frame: VideoFrame, size: int, stream: VideoStream) -> NDArray[np.uint8]:
    """uint8 [size, size, 3]: the centre square in display space, upright."""
    aspect = float(stream.sample_aspect_ratio or 1) or 1.0
    side = min(frame.width * aspect, float(frame.height))
    width, height = max(1, round(side / aspect)), max(1, round(side))
    left, top = (frame.width - width) // 2, (frame.height - height) // 2
    whole = frame.to_ndarray(format="rgb24", dst_color_range=ColorRange.JPEG)
    crop = np.ascontiguousarray(whole[top : top + height, left : left + width], dtype=np.uint8)
    small = av.VideoFrame.from_ndarray(crop, format="rgb24").reformat(
        width=size, height=size, interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND
    )
    upright = np.rot90(small.to_ndarray(format="rgb24"), k=frame.rotation // 90 % 4)
    return np.ascontiguousarray(upright, dtype=np.uint8)


def _resampled(source: _Source, stream: Stream, limits: MediaLimits, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """Mono pieces; a stream that changes its rate or layout half-way (joined files do) gets a new resampler there."""
    resampler, format_now = None, None
    seconds = 0.0
    for frame in _decoded(source, stream):
        # Before it is resampled: a small file of a few samples a second would fill the memory.
        seconds += frame.samples / max(frame.sample_rate, 1)
        if seconds > limits.audio_seconds + _ROUNDING_S:
            raise source.limit(f"longer than {limits.audio_seconds:g} s", "audio_too_long")
        frame.pts = None  # gaps in time stamps are not silence, and overlapping ones are not an error
        format_of_frame = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or format_of_frame != format_now:
            yield from _pieces(resampler, None)
            resampler = av.AudioResampler(format="flt", layout="mono", rate=sample_rate)
            format_now = format_of_frame
        try:
            yield from _pieces(resampler, frame)
        except (ValueError, av.error.FFmpegError) as error:
            raise source.error("the sound has a layout that cannot be read", "unreadable_media") from error
    yield from _pieces(resampler, None)


def _pieces(resampler: av.AudioResampler | None, frame: av.AudioFrame | None) -> Iterator[NDArray[np.float32]]:
    for piece in resampler.resample(frame) if resampler is not None else ():
        yield piece.to_ndarray()[0].astype(np.float32)
