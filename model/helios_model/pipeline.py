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

from helios_model import chunks
from helios_model.audio import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, frame_features, latent_tokens, speech_level
from helios_model.chunks import ChunkLayout, Request
from helios_model.codec import GROUP, PATCH, PatchCodec, to_float, to_uint8
from helios_model.config import ModelConfig
from helios_model.dit import VideoRefDiT
from helios_model.modes import A2V, PERSONALITY
from helios_model.reference import Identity, ReferenceContext, ReferenceStore
from helios_model.sampler import Guidance, schedule
from helios_model.text import tokenize
from helios_model.weights import CONFIG, FORMAT, BundleError, load_into, read_config, write_bundle

__all__ = ["AvatarPipeline", "BundleError", "Guidance", "Sampling"]

Frames = NDArray[np.uint8]
FIRST_LATENTS = 5
"""Latent frames of a chunk: 17 pixel frames, then 12 new ones a chunk after a prefix of two latent frames."""
REFERENCE_BYTES = 64 * 2**20
"""Memory for people who were encoded before; one takes less than 1 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a bundle wants to be sampled.

    Attributes:
        guidance: None for a student that has its guidance distilled in.
        eta: of stochastic Euler; 0 is deterministic.
        reference_latents: latent frames taken from the reference video unless the caller says otherwise; 0 for a model
            that has not learned references: the video's first frame then conditions as an image.
        hold: share of its still picture's drift that each later chunk gives back, 0..1 (`chunks.hold_appearance`).
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
        references: people that were encoded before.
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
        self.references = ReferenceStore(REFERENCE_BYTES)

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
        self._check(reference_frames, audio, steps, reference_latents)

        def frames() -> Iterator[Frames]:
            request = self.request(
                reference_frames,
                audio,
                prompt=prompt,
                seed=seed,
                steps=steps,
                guidance=guidance,
                reference_latents=reference_latents,
            )
            total = request.layout.chunks(request.frames)
            for piece in chunks.generate(self.model, self.codec, request):
                if on_progress is not None:
                    on_progress((piece.chunk + 1) / total)
                yield to_uint8(piece.frames_BFHW3[0]).numpy()

        return frames()

    def request(
        self,
        reference_frames: Frames,
        audio: NDArray[np.float32],
        *,
        prompt: str = "",
        seed: int = 0,
        steps: int | None = None,
        guidance: Guidance | None = None,
        reference_latents: int | None = None,
    ) -> Request:
        """What `generate` asks of `chunks.generate`, for those who want latents, or to go on later; arguments as there.

        Raises:
            ValueError: as `generate`.
        """
        self._check(reference_frames, audio, steps, reference_latents)
        sound_S = torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))
        count = self.sampling.reference_latents if reference_latents is None else reference_latents
        config, side, layout = self.model.config, self.size // PATCH, ChunkLayout(latents=FIRST_LATENTS)
        frames = math.ceil(len(sound_S) / SAMPLES_PER_FRAME)
        latents = sum(layout.span(layout.chunks(frames) - 1))
        features_BFA = frame_features(speech_level(sound_S[None]), frames, config.log_mel.mels)
        text, silent_text = (
            tokenize([words], buckets=config.words.buckets, length=config.words.tokens) for words in (prompt, "")
        )
        return Request(
            mode=PERSONALITY if count else A2V,
            frames=frames,
            layout=layout,
            height=side,
            width=side,
            sigmas=schedule(steps or self.sampling.steps, self.sampling.shift),
            text=text,
            silent_text=silent_text,
            guidance=guidance or self.sampling.guidance,
            eta=self.sampling.eta,
            seed=seed,
            audio=chunks.whole(latent_tokens(features_BFA, 0, latents, config.log_mel.tokens)),
            anchor_BCHW=None if count else self._encode_image(reference_frames[0]),
            reference=self.encode_person(reference_frames, count) if count else None,
            hold=self.sampling.hold,
            piece=layout.latents,
        )

    @torch.no_grad()
    def encode_person(self, reference_frames: Frames, count: int) -> ReferenceContext:
        """`count` latent frames spread over the video, their keys and values: for all chunks, steps and prompts."""
        latents = self.codec.encode_groups(to_float(torch.from_numpy(pick_groups(reference_frames, count)))[None])
        return self.references.encoded(ReferenceContext.of(Identity(latents_BCTHW=latents)), self.model)

    @torch.no_grad()
    def _encode_image(self, frame: NDArray[np.uint8]) -> Tensor:
        """The latent image `[1, C, H, W]` of one frame."""
        return self.codec.encode(to_float(torch.from_numpy(frame))[None, None])[:, :, 0]

    def _check(self, frames: Frames, audio: NDArray[np.float32], steps: int | None, count: int | None) -> None:
        """Raises ValueError where one of them is nothing to generate from."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (self.size, self.size, 3):
            raise ValueError(
                f"reference_frames is uint8 [F, {self.size}, {self.size}, 3], not {frames.dtype} {list(frames.shape)}"
            )
        if len(frames) == 0:
            raise ValueError("reference_frames holds no frame")
        if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating):
            raise ValueError(f"audio is float32 [n], not {audio.dtype} {list(audio.shape)}")
        if audio.size == 0:
            raise ValueError("audio holds no sample")
        if not np.isfinite(audio).all():
            raise ValueError("audio holds NaN or infinity")
        if steps is not None and steps < 1:
            raise ValueError(f"steps is at least 1, not {steps}")
        if count is not None and not 0 <= count <= 64:
            raise ValueError(f"reference_latents is 0 to 64, not {count}")


def pick_groups(frames: Frames, count: int) -> Frames:
    """`count` groups of four neighbouring frames, their starts spread evenly over the video, `[4 count, H, W, 3]`.

    A video shorter than four frames repeats its last one; groups overlap where there are too few frames.
    """
    if len(frames) < GROUP:
        frames = np.concatenate([frames, np.repeat(frames[-1:], GROUP - len(frames), axis=0)])
    last = len(frames) - GROUP
    starts = np.linspace(0, last, count).round().astype(int) if count > 1 else np.array([last // 2])
    return np.concatenate([frames[start : start + GROUP] for start in starts])
