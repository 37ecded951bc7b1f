"""AvatarPipeline: a reference video and speech in, a talking video out, chunk by chunk."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from helios_model.audio import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, frame_features, latent_tokens, speech_level
from helios_model.codec import GROUP, PatchCodec, to_float, to_uint8
from helios_model.config import ModelConfig
from helios_model.dit import PREFIX_FRAMES, ReferenceCache, VideoRefDiT
from helios_model.sampler import Conditions, Guidance, make_velocity, sample, schedule
from helios_model.text import tokenize
from helios_model.weights import CONFIG, FORMAT, BundleError, load_into, read_config, write_bundle

__all__ = ["AvatarPipeline", "BundleError", "Guidance", "Sampling"]

Frames = NDArray[np.uint8]
FIRST_LATENTS = 5
"""Latent frames of the first chunk, 17 pixel frames."""
LATER_LATENTS = FIRST_LATENTS - PREFIX_FRAMES
"""New latent frames of each further chunk, 12 pixel frames; the prefix makes up the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a bundle wants to be sampled.

    Attributes:
        guidance: None for a student that has its guidance distilled in.
        eta: of stochastic Euler; 0 is deterministic.
        reference_latents: latent frames taken from the reference video unless the caller says otherwise; 0 for a model
            that has not learned references: the video's first frame then conditions as an image.
        hold: share of its still picture's drift that each later chunk gives back, 0..1 (`hold_appearance`).
    """

    steps: int = 12
    shift: float = 2.0
    eta: float = 0.0
    guidance: Guidance | None = None
    reference_latents: int = 4
    hold: float = 0.3


class AvatarPipeline:
    """Generates talking video of the person in a reference video.

    Attributes:
        size: height and width of frames in pixels.
        document: the whole config.json, with what its maker recorded.
    """

    fps = FPS
    sample_rate = SAMPLE_RATE

    def __init__(
        self, model: VideoRefDiT, codec: PatchCodec, sampling: Sampling, *, document: dict[str, Any] | None = None
    ) -> None:
        self.model = model.eval().requires_grad_(requires_grad=False)
        self.codec = codec
        self.sampling = sampling
        self.document = document or {}

    @property
    def size(self) -> int:
        return self.model.config.frame_size

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load a bundle.

        Raises:
            BundleError: what is missing, damaged or does not fit, by file and key.
        """
        folder = Path(folder)
        document = read_config(folder)
        try:
            config = ModelConfig.from_json(document["model"])
            sampling = dict(document["sampling"])
            guidance = sampling.pop("guidance")
            wanted = Sampling(guidance=None if guidance is None else Guidance(**guidance), **sampling)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{folder / CONFIG} does not describe a model: {error}") from error
        model, codec = VideoRefDiT(config), PatchCodec(config.channels)
        load_into(model, folder / "model.safetensors")
        load_into(codec, folder / "codec.safetensors")
        return cls(model, codec, wanted, document=document)

    def save_pretrained(self, folder: str | Path, *, lineage: dict[str, Any] | None = None) -> None:
        """Write the bundle, whole or not at all.

        Args:
            lineage: where it comes from; goes to lineage.json.
        """
        document = {
            **self.document,
            "format": FORMAT,
            "model": self.model.config.to_json(),
            "sampling": asdict(self.sampling),
        }
        documents = {CONFIG: document} | ({} if lineage is None else {"lineage.json": lineage})
        tensors = {"model.safetensors": self.model.state_dict(), "codec.safetensors": self.codec.state_dict()}
        write_bundle(Path(folder), documents, tensors)

    def generate(
        self,
        reference_frames: Frames,
        audio: NDArray[np.float32],
        *,
        prompt: str = "",
        seed: int = 0,
        steps: int | None = None,
        guidance: Guidance | None = None,
        reference_latents: int | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Iterator[Frames]:
        """Yield uint8 `[f, size, size, 3]` chunks, in total exactly `ceil(n / 640)` frames.

        Args:
            reference_frames: uint8 `[F, size, size, 3]`, one frame or more of the person.
            audio: float32 `[n]`, mono, 16 kHz, n > 0.
            guidance: overrides the bundle's own way; a distilled bundle runs one pass a step without it.
            on_progress: called with the share done, 0..1, after each denoised chunk.

        Raises:
            ValueError: a wrong shape, type, or non-finite sound, before anything is computed.
        """
        reference = self._checked_reference(reference_frames)
        sound_S = _checked_audio(audio)
        if steps is not None and steps < 1:
            raise ValueError(f"steps is at least 1, not {steps}")
        wanted = self.sampling.reference_latents if reference_latents is None else reference_latents
        if not 0 <= wanted <= 64:
            raise ValueError(f"reference_latents is 0 to 64, not {wanted}")
        plan = _Plan(
            sigmas=schedule(steps or self.sampling.steps, self.sampling.shift),
            guidance=guidance or self.sampling.guidance,
            seed=seed,
            prompt=prompt,
        )
        return self._chunks(reference, sound_S, wanted, plan, on_progress)

    @torch.inference_mode()
    def encode_person(self, reference_frames: Frames, count: int) -> ReferenceCache:
        """Keys and values of `count` latent frames spread over the video, for all chunks, steps and prompts."""
        latents = self.codec.encode_groups(to_float(torch.from_numpy(pick_groups(reference_frames, count)))[None])
        return self.model.encode_reference(latents)

    def _chunks(
        self,
        reference_frames: Frames,
        sound_S: Tensor,
        count: int,
        plan: "_Plan",
        on_progress: Callable[[float], None] | None,
    ) -> Iterator[Frames]:
        config = self.model.config
        total = math.ceil(len(sound_S) / SAMPLES_PER_FRAME)
        chunks = 1 + max(0, math.ceil((total - 1 - GROUP * (FIRST_LATENTS - 1)) / (GROUP * LATER_LATENTS)))
        latents = FIRST_LATENTS + (chunks - 1) * LATER_LATENTS
        features_BFA = frame_features(speech_level(sound_S[None]), total, config.log_mel.mels)
        audio_BTLK = latent_tokens(features_BFA, 0, latents, config.log_mel.tokens)
        cache = self.encode_person(reference_frames, count) if count else None
        anchor = None if count else self._encode_image(reference_frames[0])
        sent = 0
        last: Tensor | None = None
        still: Tensor | None = None
        for chunk in range(chunks):
            new = self._denoise(plan, chunk, audio_BTLK=audio_BTLK, cache=cache, prefix=last, anchor=anchor)
            if still is None:
                pixels = self.codec.decode(new)
                anchor = new[:, :, 0] if anchor is None else anchor
                still = new[:, :, 1:].mean(2)
            else:
                new = hold_appearance(new, still, self.sampling.hold)
                pixels = self.codec.decode_groups(new)
            last = new[:, :, -PREFIX_FRAMES:]
            frames = to_uint8(pixels[0, : total - sent]).numpy()
            sent += len(frames)
            if on_progress is not None:
                on_progress((chunk + 1) / chunks)
            yield frames

    @torch.inference_mode()
    def _denoise(
        self,
        plan: "_Plan",
        chunk: int,
        *,
        audio_BTLK: Tensor,
        cache: ReferenceCache | None,
        prefix: Tensor | None,
        anchor: Tensor | None,
    ) -> Tensor:
        """The new latent frames `[1, C, T, H, W]` of a chunk."""
        config = self.model.config
        count = FIRST_LATENTS if chunk == 0 else LATER_LATENTS
        start = 0 if chunk == 0 else FIRST_LATENTS + (chunk - 1) * LATER_LATENTS
        heard = start if prefix is None else start - PREFIX_FRAMES
        text_BL, silent_BL = (
            tokenize([prompt], buckets=config.words.buckets, length=config.words.tokens) for prompt in (plan.prompt, "")
        )
        given = Conditions(
            text_BL=text_BL,
            silent_text_BL=silent_BL,
            audio_BTLK=audio_BTLK[:, heard : start + count],
            prefix_BCTHW=prefix,
            anchor_BCHW=anchor,
            reference=cache,
        )
        side = self.size // 8
        velocity = make_velocity(self.model, given, plan.guidance)
        shape = (1, config.channels, count, side, side)
        return sample(velocity, shape, plan.sigmas, seed=plan.seed, chunk=chunk, eta=self.sampling.eta)

    @torch.inference_mode()
    def _encode_image(self, frame: NDArray[np.uint8]) -> Tensor:
        """The latent image `[1, C, H, W]` of one frame."""
        return self.codec.encode(to_float(torch.from_numpy(frame))[None, None])[:, :, 0]

    def _checked_reference(self, frames: Frames) -> Frames:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (self.size, self.size, 3):
            raise ValueError(
                f"reference_frames is uint8 [F, {self.size}, {self.size}, 3], not {frames.dtype} {list(frames.shape)}"
            )
        if len(frames) == 0:
            raise ValueError("reference_frames holds no frame")
        return frames


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    sigmas: list[float]
    guidance: Guidance | None
    seed: int
    prompt: str


def hold_appearance(new_BCTHW: Tensor, still_BCHW: Tensor, share: float) -> Tensor:
    """Move a chunk's still picture, its mean over time, towards `still_BCHW` by `share`; its motion stays.

    Each chunk begins from the one before, so that colours and faces drift where nothing holds them. Measured in
    docs/decisions/0012-holding-appearance.md.
    """
    return new_BCTHW + share * (still_BCHW - new_BCTHW.mean(2))[:, :, None]


def pick_groups(frames: Frames, count: int) -> Frames:
    """`count` groups of four neighbouring frames, their starts spread evenly over the video, `[4 count, H, W, 3]`.

    A video shorter than four frames repeats its last one; groups overlap where there are too few frames.
    """
    if len(frames) < GROUP:
        frames = np.concatenate([frames, np.repeat(frames[-1:], GROUP - len(frames), axis=0)])
    last = len(frames) - GROUP
    starts = np.linspace(0, last, count).round().astype(int) if count > 1 else np.array([last // 2])
    return np.concatenate([frames[start : start + GROUP] for start in starts])


def _checked_audio(audio: NDArray[np.float32]) -> Tensor:
    if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating):
        raise ValueError(f"audio is float32 [n], not {audio.dtype} {list(audio.shape)}")
    if audio.size == 0:
        raise ValueError("audio holds no sample")
    if not np.isfinite(audio).all():
        raise ValueError("audio holds NaN or infinity")
    return torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))
