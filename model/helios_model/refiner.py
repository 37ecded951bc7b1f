"""Identity-aware super-resolution (Avatar V): one denoising step in the larger picture, with all that the base knew.

The refiner is a VideoRefDiT with weights of its own and self-attention in local temporal windows (`config.window`):
what it costs grows with the length of a chunk, not with its square. The base's video in the larger picture, the draft,
is noised to sigma = 0.6, which drowns its blurred detail and leaves layout and motion, and is denoised in one step,
`x0 = x - sigma v`, with the person's reference, the sound and the motion.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from helios_model import inputs, modes
from helios_model.chunks import Track
from helios_model.dit import PREFIX_FRAMES, VideoRefDiT
from helios_model.reference import ReferenceContext
from helios_model.sampler import Conditions, Sample, conditional_velocity, euler_step, keyed_noise
from helios_model.video_codec import SPATIAL, VideoCodec

SIGMA = 0.6
"""Noise level of the draft (Avatar V)."""
NOISE_STEP = -1
"""Step in the key of the draft's noise: the sampler's count from 0, and the base's noise must not come again."""


class EncodeStream(Protocol):
    """The encoder of one clip, from its start to its end; its memory does not grow with the clip."""

    def encode(self, frames_BFHW3: Tensor) -> Tensor:
        """The latents of the next frames: 4 (T - 1) + 1 frames at first, then 4 T."""


class StreamingCodec(VideoCodec, Protocol):
    """A codec that also encodes chunk by chunk."""

    def encode_stream(self) -> EncodeStream: ...


def refine(model: VideoRefDiT, given: Conditions, *, seed: int, chunk: int = 0) -> Tensor:
    """Clean latents of the draft's shape, fp32, in one pass of the network.

    Args:
        given: with the low-resolution video in the larger picture as `draft_BCTHW` (`Upsampler`), the motion that the
            base sampled or was given, and keys and values that this network made, not the base's
            (`ReferenceContext.keys_for`). Its `silent_text` is not looked at: one pass has no guidance.
        seed, chunk: with the draft's shape they decide the noise (`sampler.keyed_noise`).

    Raises:
        ValueError: a network without windows, inputs that `modes.REFINER` does not take, or one that does not fit; the
            message names it.
    """
    config = model.config
    if config.window is None:
        raise ValueError(f"this network ({config.preset}) has no temporal windows, a refiner has")
    modes.check(modes.REFINER, given.names())
    assert given.draft_BCTHW is not None, "the mode asks for it"
    inputs.check_latents("draft_BCTHW", given.draft_BCTHW, config)
    draft_BCTHW = given.draft_BCTHW.float()
    noise_BCTHW = keyed_noise(draft_BCTHW.shape, seed=seed, chunk=chunk, step=NOISE_STEP).to(draft_BCTHW.device)
    x_BCTHW = (1 - SIGMA) * draft_BCTHW + SIGMA * noise_BCTHW
    sigma_B = x_BCTHW.new_full((x_BCTHW.shape[0],), SIGMA)
    velocity_BCTHW = conditional_velocity(model, x_BCTHW, sigma_B, given).velocity_BCTHW
    return euler_step(x_BCTHW, velocity_BCTHW, SIGMA, 0.0)


class Upsampler:
    """Makes drafts of `size` (height and width in latents) of one video's latents, chunk after chunk.

    Latents are decoded, enlarged as pictures and encoded again, not interpolated: a latent is the code of its own
    square of pixels, and between the codes of two squares lies the code of neither nor of anything between them. One
    latent frame is in work at a time, so that memory does not grow with the chunk.
    """

    def __init__(self, codec: StreamingCodec, size: tuple[int, int]) -> None:
        self.size = size
        self._decoder, self._encoder = codec.stream(), codec.encode_stream()

    @torch.no_grad()
    def __call__(self, low_BCTHW: Tensor) -> Tensor:
        """The next latents, `[B, C, T, *size]`.

        Raises:
            ValueError: they are larger than `size`, or the codec does not take them.
        """
        if low_BCTHW.ndim != 5 or low_BCTHW.shape[3] > self.size[0] or low_BCTHW.shape[4] > self.size[1]:
            raise ValueError(f"low_BCTHW is {list(low_BCTHW.shape)}, a refiner's draft of {self.size} is no smaller")
        return torch.cat([self._frame(low_BC1HW) for low_BC1HW in torch.split(low_BCTHW, 1, dim=2)], dim=2)

    def _frame(self, low_BC1HW: Tensor) -> Tensor:
        return self._encoder.encode(enlarge(self._decoder.decode(low_BC1HW), self.size))


def enlarge(frames_BFHW3: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames (-1..1) at a size given in latents, bicubic, frame by frame."""
    pixels = [SPATIAL * side for side in size]
    x_N3HW = frames_BFHW3.flatten(0, 1).movedim(-1, 1)
    # With antialias torch takes Keys' a = -0.5, which keeps slopes straight; without it -0.75, which makes stairs.
    large_N3HW = interpolate(x_N3HW, size=pixels, mode="bicubic", antialias=True).clamp(-1, 1)
    return torch.unflatten(large_N3HW.movedim(1, -1), 0, frames_BFHW3.shape[:2])


def refine_video(
    model: VideoRefDiT,
    codec: StreamingCodec,
    low: Iterable[Sample],
    size: tuple[int, int],
    *,
    text: Tensor,
    reference: ReferenceContext,
    audio: Track,
    seed: int = 0,
) -> Iterator[Tensor]:
    """Refined latents `[B, C, T, *size]` of a video, chunk by chunk, each as soon as the base's chunk is there.

    As in the base, a later chunk has the last two refined latent frames as prefix and the first one as anchor.

    Args:
        low: what the base generated, the new latents of each chunk with their motion.
        size: height and width in latents.
        reference: encoded by this network.
        audio: driving sound by latent frame of the video.

    Raises:
        ValueError: a size that is not whole patches, before anything is computed; or as `refine`.
        ReferenceMismatchError: the reference was encoded by another network (the base, say), or not at all.
    """
    config = model.config
    inputs.check_latents("draft_BCTHW", torch.empty(1, config.channels, 1, *size, device="meta"), config)
    given = Conditions(text=text, silent_text=text, reference=reference.to(text.device).keys_for(model))
    return _chunks(model, Upsampler(codec, size), low, given, audio=audio, seed=seed)


def _chunks(
    model: VideoRefDiT, upsample: Upsampler, low: Iterable[Sample], given: Conditions, *, audio: Track, seed: int
) -> Iterator[Tensor]:
    start = heard = 0
    for chunk, made in enumerate(low):
        draft_BCTHW = upsample(made.latents_BCTHW)
        count = draft_BCTHW.shape[2]
        given = replace(
            given,
            draft_BCTHW=draft_BCTHW,
            motion_BTM=made.motion_BTM,
            audio_BTLK=audio(start - heard, count + heard),
        )
        with torch.no_grad():
            new_BCTHW = refine(model, given, seed=seed, chunk=chunk)
        yield new_BCTHW
        start += count
        prefix_BCTHW = new_BCTHW[:, :, -PREFIX_FRAMES:].clone()
        heard = prefix_BCTHW.shape[2]
        anchor_BCHW = new_BCTHW[:, :, 0].clone() if given.anchor_BCHW is None else given.anchor_BCHW
        given = replace(given, prefix_BCTHW=prefix_BCTHW, anchor_BCHW=anchor_BCHW)
