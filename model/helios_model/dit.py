"""VideoRefDiT: Wan2.1's diffusion transformer, made to watch reference video, hear speech and model motion.

Streams (Avatar V; TAVR 3.1): the generation stream `g = [z_m, z, z_bg, m]` (clean prefix latents, noisy latents, clean
anchor or background image, motion tokens) and the reference stream `r`. Both run through the same weights; `r` at
sigma = 0, hearing its own sound only, without text, and without seeing `g`, so that its keys and values hold for all
denoising steps, chunks and prompts. Without its optional inputs the network is Wan2.1 T2V.

Shapes: B batch, C latent channels, T latent frames, H and W latent height and width, N tokens, E embedding, L audio
tokens of a latent frame, K features of an input, M numbers of a motion vector.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from helios_model import inputs
from helios_model.attention import KeyValue
from helios_model.blocks import Block, Sound
from helios_model.checkpointing import Checkpointing
from helios_model.config import ModelConfig, WordTable
from helios_model.kernels import modulated_norm
from helios_model.streams import (
    ANCHOR,
    PREFIX_FRAMES,
    REFERENCE,
    REFERENCE_FRAMES,
    Layout,
    StreamPlan,
    generation_plan,
    patchify,
    reference_plan,
    stream_kinds,
    unpatchify,
)
from helios_model.ulysses import Ulysses

__all__ = ["PREFIX_FRAMES", "Prediction", "ReferenceCache", "VideoRefDiT"]

_SMALLEST_SIGMA = 0.05


class Prediction(NamedTuple):
    """Velocities `eps - x0` of the noisy latents and, where motion was given, of its vectors."""

    velocity_BCTHW: Tensor
    motion_BTM: Tensor | None


@dataclass(frozen=True, slots=True)
class ReferenceCache:
    """Keys and values of the reference tokens, one pair a layer; under Ulysses those of this rank's heads.

    Attributes:
        copies: of the batch that they serve (`expand`).
    """

    layers: tuple[KeyValue, ...]
    copies: int = 1

    @property
    def tokens(self) -> int:
        return int(self.layers[0].k_BMHD.shape[1])

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for pair in self.layers for part in pair)

    def expand(self, times: int) -> "ReferenceCache":
        """The same references for `times` copies of the batch; the copies are made a layer at a time (`layer`)."""
        return replace(self, copies=self.copies * times)

    def layer(self, index: int) -> KeyValue:
        """Keys and values of one layer for all copies of the batch; for a batch of one no memory is copied."""
        return KeyValue(*(_tile(part, self.copies) for part in self.layers[index]))

    def to(self, device: torch.device | str) -> "ReferenceCache":
        """The same on `device`; what is there already is not copied."""
        return replace(self, layers=tuple(KeyValue(*(part.to(device) for part in pair)) for pair in self.layers))


class WordEmbedding(nn.Module):
    """Word numbers `[B, L]` to `[B, L, E]`."""

    def __init__(self, words: WordTable, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(words.buckets, dim)
        self.position = nn.Parameter(torch.randn(words.tokens, dim) * 0.02)

    def forward(self, text_BL: Tensor) -> Tensor:
        embedded_BLE: Tensor = self.table(text_BL) + self.position
        return embedded_BLE


class VideoRefDiT(nn.Module):
    """Velocity `v = eps - x0` of noisy latents.

    Where the head predicts x0 (`config.prediction`) the network returns `(x_sigma - x0) / max(sigma, 0.05)`.

    Attributes:
        compute_dtype: of the matrix products by autocast, for fp32 weights; None: that of the weights.
        ulysses: the group that shares the sequence, or None.
        checkpointing: what is recomputed in the backward pass.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype: torch.dtype | None = None
        self.ulysses: Ulysses | None = None
        self.checkpointing: Checkpointing = "none"
        dim, patch_dim = config.dim, config.channels * config.patch**2
        self.patch_embedding = nn.Linear(patch_dim, dim)
        self.stream_embedding = nn.Parameter(torch.zeros(5, dim))
        self.text_embedding: nn.Module
        if isinstance(config.text, WordTable):
            self.text_embedding = WordEmbedding(config.text, dim)
        else:
            self.text_embedding = _two_layers(config.text.dim, dim, nn.GELU(approximate="tanh"))
        self.time_embedding = _two_layers(config.frequency_dim, dim, nn.SiLU())
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        if config.audio is not None:
            self.audio_embedding = _two_layers(config.audio.dim, dim, nn.GELU())
            self.audio_position = nn.Parameter(torch.randn(config.audio.tokens, dim) * 0.02)
        if config.motion is not None:
            self.motion_embedding = nn.Linear(config.motion.dim, dim)
            self.motion_time = _two_layers(config.frequency_dim, dim, nn.SiLU())
            self.motion_injection = _zeros(nn.Linear(dim, dim))
            self.motion_head = _zeros(nn.Linear(dim, config.motion.dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head_modulation = nn.Parameter(torch.zeros(1, 2, dim))
        self.head = _zeros(nn.Linear(dim, patch_dim))

    def forward(
        self,
        z_BCTHW: Tensor,
        sigma_B: Tensor,
        text: Tensor,
        *,
        audio_BTLK: Tensor | None = None,
        audio_keep_B: Tensor | None = None,
        prefix_BCTHW: Tensor | None = None,
        anchor_BCHW: Tensor | None = None,
        anchor_keep_BK: Tensor | None = None,
        motion_BTM: Tensor | None = None,
        motion_sigma_B: Tensor | None = None,
        reference_BCTHW: Tensor | None = None,
        reference_audio_BTLK: Tensor | None = None,
        reference_keep_BK: Tensor | None = None,
        reference: ReferenceCache | None = None,
    ) -> Prediction:
        """Velocities of `z_BCTHW` and `motion_BTM`, in their shapes.

        Args:
            sigma_B: noise level, 1 is pure noise.
            text: word numbers `[B, L]` (`text.tokenize`) or features `[B, L, K]`, as the config says.
            audio_BTLK: driving sound of the prefix and the noisy frames, in that order; None: silent network.
            audio_keep_B: 0 where a sample is to ignore its sound; says nothing where there is none.
            prefix_BCTHW: clean latent frames that come just before `z`.
            anchor_BCHW: a clean latent image that sets the look or the background.
            anchor_keep_BK: its tokens that are not dropped, ascending (`selection.background_tokens`).
            motion_BTM: noisy motion vectors of z's frames.
            motion_sigma_B: their noise level, where it is not `sigma_B`; 0 imposes a motion.
            reference_BCTHW: latent frames of the person, with their sound and the tokens that are not dropped
                (`selection.kept_indices`), ascending; or `reference`, their keys and values computed before.

        Raises:
            ValueError: an input that does not fit the network or the others; the message names it.
        """
        config = self.config
        inputs.check_latents("z_BCTHW", z_BCTHW, config)
        inputs.check_noise_and_text(z_BCTHW, sigma_B, text, config)
        inputs.check_companions(z_BCTHW, prefix_BCTHW, anchor_BCHW, anchor_keep_BK, config)
        prefix = 0 if prefix_BCTHW is None else prefix_BCTHW.shape[2]
        inputs.check_sound("audio_BTLK", audio_BTLK, prefix + z_BCTHW.shape[2], z_BCTHW.shape[0], config)
        inputs.check_each("audio_keep_B", audio_keep_B, z_BCTHW.shape[0])
        inputs.check_motion(motion_BTM, motion_sigma_B, z_BCTHW, config)
        if reference_BCTHW is None:
            inputs.check_absent(
                "reference_BCTHW", reference_keep_BK=reference_keep_BK, reference_audio_BTLK=reference_audio_BTLK
            )
        else:
            if reference is not None:
                raise ValueError("give reference_BCTHW or its cache, reference, not both")
            # Not as a method of self: under FSDP that gathers the weights which forward has gathered already.
            reference = VideoRefDiT.encode_reference(
                self, reference_BCTHW, audio_BTLK=reference_audio_BTLK, keep_BK=reference_keep_BK
            )
        ranks = 1 if self.ulysses is None else self.ulysses.degree
        inputs.check_reference(reference, z_BCTHW.shape[0], config, ranks)
        with self._autocast(z_BCTHW):
            motion_BTE = self._motion_tokens(motion_BTM, sigma_B if motion_sigma_B is None else motion_sigma_B)
            x_BNE, plan, layout = self._generation_stream(
                z_BCTHW, prefix_BCTHW, anchor_BCHW, anchor_keep_BK, motion_BTE
            )
            time_BE, time_B6E = self._time(sigma_B)
            text_BLE = self.text_embedding(text if text.dtype == torch.int64 else text.to(self.dtype))
            sound = self._sound(audio_BTLK, audio_keep_B)
            for index, block in enumerate(self._blocks()):
                pair = None if reference is None else reference.layer(index)
                x_BNE = block(
                    x_BNE,
                    time_B6E,
                    plan,
                    text_BLE=text_BLE,
                    sound=sound,
                    reference=pair,
                    checkpointing=self.checkpointing,
                )
            rows_BNP = self._rows(x_BNE, time_BE)
            motion_velocity_BTM = self._motion_velocity(x_BNE, plan, layout)
        span = (layout.prefix * layout.area, layout.visual)
        rows_BNP = _everywhere(_own(rows_BNP, plan, *span), plan, *span)
        out_BCTHW = unpatchify(rows_BNP, z_BCTHW.shape, config.patch)
        if config.prediction == "clean":
            level_B = sigma_B.clamp(min=_SMALLEST_SIGMA)
            out_BCTHW = (z_BCTHW - out_BCTHW) / level_B[:, None, None, None, None]
        return Prediction(out_BCTHW, motion_velocity_BTM)

    def encode_reference(
        self, reference_BCTHW: Tensor, *, audio_BTLK: Tensor | None = None, keep_BK: Tensor | None = None
    ) -> ReferenceCache:
        """Keys and values of reference latent frames, modulated with the sigma = 0 embedding.

        Args:
            audio_BTLK: the sound of the reference video itself.
            keep_BK: tokens that are not dropped, ascending, as indices into frame-major tokens.

        Raises:
            ValueError: an input that does not fit; the message names it.
        """
        inputs.check_latents("reference_BCTHW", reference_BCTHW, self.config, limit=REFERENCE_FRAMES)
        batch, _, frames, height, width = reference_BCTHW.shape
        patch = self.config.patch
        inputs.check_sound("reference audio_BTLK", audio_BTLK, frames, batch, self.config)
        area = (height // patch) * (width // patch)
        inputs.check_kept("reference keep_BK", keep_BK, batch, frames * area)
        with self._autocast(reference_BCTHW):
            r_BNE = self.patch_embedding(patchify(reference_BCTHW.to(self.dtype), patch))
            r_BNE = (r_BNE + self.stream_embedding[REFERENCE]).to(self.dtype)
            if keep_BK is not None:
                r_BNE = r_BNE.gather(1, keep_BK.unsqueeze(-1).expand(-1, -1, r_BNE.shape[-1]))
            plan = reference_plan(
                frames,
                height // patch,
                width // patch,
                keep_BK,
                head_dim=self.config.head_dim,
                device=reference_BCTHW.device,
                ulysses=self.ulysses,
            )
            r_BNE = r_BNE if self.ulysses is None else self.ulysses.shard(r_BNE)
            _, time_B6E = self._time(torch.zeros(batch, device=reference_BCTHW.device))
            sound = self._sound(audio_BTLK, None)
            layers = []
            blocks = self._blocks()
            for block in blocks[:-1]:
                r_BNE, pair = block.forward_reference(r_BNE, time_B6E, plan, sound, self.checkpointing)
                layers.append(_alone(pair, plan))
            layers.append(_alone(blocks[-1].reference_keys(r_BNE, time_B6E, plan), plan))
        return ReferenceCache(tuple(layers))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights and of the residual stream."""
        return self.patch_embedding.weight.dtype

    def _autocast(self, like: Tensor) -> torch.autocast:
        dtype = self.compute_dtype or self.dtype
        return torch.autocast(like.device.type, dtype, enabled=dtype != self.dtype)

    def _generation_stream(
        self,
        z_BCTHW: Tensor,
        prefix_BCTHW: Tensor | None,
        anchor_BCHW: Tensor | None,
        anchor_keep_BK: Tensor | None,
        motion_BTE: Tensor | None,
    ) -> tuple[Tensor, StreamPlan, Layout]:
        patch = self.config.patch
        frames, height, width = z_BCTHW.shape[2], z_BCTHW.shape[3] // patch, z_BCTHW.shape[4] // patch
        prefix = 0 if prefix_BCTHW is None else prefix_BCTHW.shape[2]
        visual = z_BCTHW if prefix_BCTHW is None else torch.cat([prefix_BCTHW, z_BCTHW], dim=2)
        kinds_TE = self.stream_embedding[stream_kinds(prefix, frames)]
        x_BNE = self.patch_embedding(patchify(visual.to(self.dtype), patch))
        x_BNE = x_BNE + kinds_TE.repeat_interleave(height * width, dim=0)
        if motion_BTE is not None:
            injected_BNE = self.motion_injection(motion_BTE).repeat_interleave(height * width, dim=1)
            x_BNE = x_BNE + nn.functional.pad(injected_BNE, (0, 0, prefix * height * width, 0))
        parts = [x_BNE]
        if anchor_BCHW is not None:
            anchor_BKE = self.patch_embedding(patchify(anchor_BCHW.unsqueeze(2).to(self.dtype), patch))
            if anchor_keep_BK is not None:
                anchor_BKE = anchor_BKE.gather(1, anchor_keep_BK.unsqueeze(-1).expand(-1, -1, anchor_BKE.shape[-1]))
            parts.append(anchor_BKE + self.stream_embedding[ANCHOR])
        if motion_BTE is not None:
            parts.append(motion_BTE)
        layout = Layout(
            prefix=prefix,
            frames=frames,
            height=height,
            width=width,
            anchor=0 if anchor_BCHW is None else parts[1].shape[1],
            motion=motion_BTE is not None,
        )
        plan = generation_plan(
            layout,
            anchor_keep_BK,
            head_dim=self.config.head_dim,
            window=self.config.window,
            device=z_BCTHW.device,
            ulysses=self.ulysses,
        )
        x_BNE = torch.cat(parts, dim=1).to(self.dtype)
        return x_BNE if self.ulysses is None else self.ulysses.shard(x_BNE), plan, layout

    def _rows(self, x_BNE: Tensor, time_BE: Tensor) -> Tensor:
        """What the head says of every token, fp32 `[B, N, patch^2 * C]`."""
        shift, scale = (self.head_modulation.float() + time_BE.float().unsqueeze(1)).chunk(2, dim=1)
        rows_BNP: Tensor = self.head(modulated_norm(x_BNE, shift, scale, self.config.eps))
        return rows_BNP.float()

    def _motion_velocity(self, x_BNE: Tensor, plan: StreamPlan, layout: Layout) -> Tensor | None:
        if not layout.motion:
            return None
        span = (layout.visual + layout.anchor, layout.tokens)
        motion_BTE = _own(x_BNE, plan, *span).float()
        normed_BTE = nn.functional.layer_norm(motion_BTE, motion_BTE.shape[-1:], eps=self.config.eps)
        # Through the head first and then to all ranks: the other way round every rank had the head's whole gradient.
        velocity_BTM: Tensor = self.motion_head(normed_BTE.to(self.dtype))
        return _everywhere(velocity_BTM.float(), plan, *span)

    def _time(self, sigma_B: Tensor) -> tuple[Tensor, Tensor]:
        time_BE = self.time_embedding(_sinusoid(sigma_B, self.config.frequency_dim).to(self.dtype))
        return time_BE, torch.unflatten(self.time_projection(time_BE), 1, (6, -1)).float()

    def _sound(self, audio_BTLK: Tensor | None, keep_B: Tensor | None) -> Sound | None:
        if audio_BTLK is None:
            return None
        return Sound(self.audio_embedding(audio_BTLK.to(self.dtype)) + self.audio_position, keep_B)

    def _motion_tokens(self, motion_BTM: Tensor | None, sigma_B: Tensor) -> Tensor | None:
        if motion_BTM is None:
            return None
        level_BE = self.motion_time(_sinusoid(sigma_B, self.config.frequency_dim).to(self.dtype))
        tokens_BTE: Tensor = self.motion_embedding(motion_BTM.to(self.dtype)) + level_BE.unsqueeze(1)
        return tokens_BTE

    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))


def _own(x_BNE: Tensor, plan: StreamPlan, start: int, stop: int) -> Tensor:
    """Tokens `start .. stop - 1` of the whole stream, as far as this rank has them."""
    return x_BNE[:, start:stop] if plan.ulysses is None else plan.ulysses.part(x_BNE, plan.tokens, start, stop)


def _everywhere(own_BME: Tensor, plan: StreamPlan, start: int, stop: int) -> Tensor:
    """The same tokens, all of them, on every rank."""
    return own_BME if plan.ulysses is None else plan.ulysses.collect(own_BME, plan.tokens, start, stop)


def _two_layers(width: int, dim: int, between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, dim), between, nn.Linear(dim, dim))


def _zeros(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _sinusoid(sigma_B: Tensor, dim: int) -> Tensor:
    """Wan's embedding of the timestep `1000 sigma`."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=sigma_B.device) / half)
    angles_BD = 1000 * sigma_B[:, None].float() * frequencies
    return torch.cat([angles_BD.cos(), angles_BD.sin()], dim=1)


def _alone(pair: KeyValue, plan: StreamPlan) -> KeyValue:
    """Keys and values that have arrived, without the queries that crossed with them in the same storage.

    Not where there will be a backward pass: it needs that storage anyway.
    """
    if plan.ulysses is None or pair.k_BMHD.requires_grad:
        return pair
    return KeyValue(*(part.clone(memory_format=torch.contiguous_format) for part in pair))


def _tile(x_BMHD: Tensor, times: int) -> Tensor:
    if times == 1:
        return x_BMHD
    if x_BMHD.shape[0] == 1:
        return x_BMHD.expand(times, -1, -1, -1)
    return x_BMHD.repeat(times, 1, 1, 1)
