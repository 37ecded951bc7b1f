"""What a video codec offers to the pipeline, and the shapes that all of them take.

Causal in time: latent frame 0 holds pixel frame 0, each further one holds four, F = 4 (T - 1) + 1. A latent is 8 x 8
pixels wide, as in Wan2.1.
"""

from typing import Protocol

from torch import Tensor

SPATIAL = 8
TEMPORAL = 4


class DecodeStream(Protocol):
    """The decoder of one clip, from its start to its end; its memory does not grow with the clip."""

    def decode(self, latents_BCTHW: Tensor) -> Tensor:
        """The frames of the next latents: 4 (T - 1) + 1 of the first chunk, 4 T of a later one."""


class VideoCodec(Protocol):
    """Frames `[B, F, H, W, 3]` (float in -1..1) to latents `[B, C, T, H/8, W/8]` and back."""

    @property
    def channels(self) -> int: ...

    def encode(self, frames_BFHW3: Tensor) -> Tensor: ...

    def decode(self, latents_BCTHW: Tensor) -> Tensor: ...

    def stream(self) -> DecodeStream:
        """A decoder of chunks; streams are independent of each other and of `decode`."""


def check_frames(frames_BFHW3: Tensor, *, first: bool = True) -> None:
    """Frames of a clip from its start, or (`first` false) some that continue it.

    Raises:
        ValueError: another shape or type; the message has what came and what was expected.
    """
    came = f"frames_BFHW3 is {frames_BFHW3.dtype} {list(frames_BFHW3.shape)}"
    if frames_BFHW3.ndim != 5 or frames_BFHW3.shape[-1] != 3 or not frames_BFHW3.is_floating_point():
        raise ValueError(f"{came}; expected floating point [B, F, H, W, 3] in -1..1")
    _, frames, height, width, _ = frames_BFHW3.shape
    if first and (frames < 1 or (frames - 1) % TEMPORAL):
        raise ValueError(f"{came}; a clip has {TEMPORAL} (T - 1) + 1 frames, not {frames}")
    if not first and (frames < 1 or frames % TEMPORAL):
        raise ValueError(f"{came}; what continues a clip has {TEMPORAL} T frames, not {frames}")
    if height % SPATIAL or width % SPATIAL or not height or not width:
        raise ValueError(f"{came}; height and width are multiples of {SPATIAL}, not {height} x {width}")


def check_latents(latents_BCTHW: Tensor, channels: int) -> None:
    """Latents of `channels` channels and at least one frame.

    Raises:
        ValueError: another shape or type; the message has what came and what was expected.
    """
    came = f"latents_BCTHW is {latents_BCTHW.dtype} {list(latents_BCTHW.shape)}"
    if latents_BCTHW.ndim != 5 or not latents_BCTHW.is_floating_point() or not all(latents_BCTHW.shape):
        raise ValueError(f"{came}; expected floating point [B, {channels}, T, H/{SPATIAL}, W/{SPATIAL}]")
    if latents_BCTHW.shape[1] != channels:
        raise ValueError(f"{came}; this codec's latents have {channels} channels, not {latents_BCTHW.shape[1]}")
