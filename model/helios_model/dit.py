"""VideoRefDiT: a Wan2.1-shaped diffusion transformer that watches reference video while it generates.

Streams (Avatar V; TAVR 3.1): the generation stream `g = [z_m, z, z_bg]` (clean prefix latents, noisy latents, clean
anchor image) and the reference stream `r`. Both run through the same weights; `r` at sigma = 0, without text or driving
audio, and without seeing `g`, so that its keys and values hold for all denoising steps, chunks and prompts.

Shapes: B batch, C latent channels, T latent frames, H and W latent height and width, N tokens, E embedding, L audio
tokens of a latent frame.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from helios_model.attention import attend, generation_attention, merge_heads, split_heads
from helios_model.config import ModelConfig
from helios_model.rope import apply_rope, grid_positions, rope_angles

PREFIX_FRAMES = 2
"""Latent frames of the chunk before that a later chunk starts from."""
_ANCHOR_TIME = 0
_FIRST_TIME = 1 + PREFIX_FRAMES
_REFERENCE_TIME = 64
_SMALLEST_SIGMA = 0.05


class Modulation(NamedTuple):
    """The six AdaLN vectors of a block, each `[B, 1, E]`."""

    shift_attention: Tensor
    scale_attention: Tensor
    gate_attention: Tensor
    shift_ffn: Tensor
    scale_ffn: Tensor
    gate_ffn: Tensor


@dataclass(frozen=True, slots=True)
class ReferenceCache:
    """Keys and values `[B, heads, N_r, D]` of the reference tokens, one pair a layer."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def tokens(self) -> int:
        return int(self.layers[0][0].shape[2])

    def expand(self, times: int) -> "ReferenceCache":
        """The same references for `times` copies of the batch, without copying memory for a batch of one."""
        return ReferenceCache(tuple((_tile(keys, times), _tile(values, times)) for keys, values in self.layers))


class AdaLN(nn.Module):
    """A block's own offset to the time embedding's six vectors; a module, so that ZeRO 3 gathers its weight."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, 6, dim) / math.sqrt(dim))

    def forward(self, time_B6E: Tensor) -> Modulation:
        return Modulation(*(self.weight + time_B6E).chunk(6, dim=1))


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.norm_q = nn.RMSNorm(dim, eps=1e-6)
        self.norm_k = nn.RMSNorm(dim, eps=1e-6)
        self.o = nn.Linear(dim, dim)

    def project(self, x_BNE: Tensor, rotation_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised and rotated queries and keys, and values, each `[B, heads, N, D]`."""
        q, k, v = self.qkv(x_BNE).float().chunk(3, dim=-1)
        q = apply_rope(split_heads(self.norm_q(q), self.heads), rotation_ND)
        k = apply_rope(split_heads(self.norm_k(k), self.heads), rotation_ND)
        return q, k, split_heads(v, self.heads)


class CrossAttention(nn.Module):
    def __init__(self, dim: int, heads: int, *, zero_output: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.norm_q = nn.RMSNorm(dim, eps=1e-6)
        self.norm_k = nn.RMSNorm(dim, eps=1e-6)
        self.o = nn.Linear(dim, dim)
        if zero_output:
            nn.init.zeros_(self.o.weight)
            nn.init.zeros_(self.o.bias)

    def forward(self, x_BNE: Tensor, context_BME: Tensor) -> Tensor:
        k, v = self.kv(context_BME).float().chunk(2, dim=-1)
        q = split_heads(self.norm_q(self.q(x_BNE).float()), self.heads)
        k = split_heads(self.norm_k(k), self.heads)
        out: Tensor = self.o(merge_heads(attend(q, k, split_heads(v, self.heads))))
        return out


class Block(nn.Module):
    """Self-attention, text cross-attention, frame-wise audio cross-attention, feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.dim
        self.modulation = AdaLN(dim)
        self.self_attn = SelfAttention(dim, config.heads)
        self.norm_text = nn.LayerNorm(dim, eps=1e-6)
        self.cross_attn = CrossAttention(dim, config.heads)
        self.norm_audio = nn.LayerNorm(dim, eps=1e-6)
        self.audio_attn = CrossAttention(dim, config.heads, zero_output=True)
        self.ffn = nn.Sequential(nn.Linear(dim, config.ffn), nn.GELU(approximate="tanh"), nn.Linear(config.ffn, dim))

    def forward(
        self,
        x_BNE: Tensor,
        modulation: Modulation,
        rotation_ND: Tensor,
        *,
        text_BLE: Tensor,
        audio: "AudioContext | None",
        reference: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """The generation stream."""
        q, k, v = self.self_attn.project(
            _modulated(x_BNE, modulation.shift_attention, modulation.scale_attention), rotation_ND
        )
        attention = self.self_attn.o(merge_heads(generation_attention(q, k, v, reference)))
        x_BNE = x_BNE + modulation.gate_attention * attention
        x_BNE = x_BNE + self.cross_attn(self.norm_text(x_BNE), text_BLE)
        if audio is not None:
            x_BNE = audio.add(x_BNE, self.norm_audio, self.audio_attn)
        return self._feed_forward(x_BNE, modulation)

    def reference_keys(
        self, r_BNE: Tensor, modulation: Modulation, rotation_ND: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the reference stream."""
        return self.self_attn.project(
            _modulated(r_BNE, modulation.shift_attention, modulation.scale_attention), rotation_ND
        )

    def forward_reference(self, r_BNE: Tensor, qkv: tuple[Tensor, Tensor, Tensor], modulation: Modulation) -> Tensor:
        """The reference stream: the second dense call, `O_r = Attn(r, r)`, and the feed-forward."""
        r_BNE = r_BNE + modulation.gate_attention * self.self_attn.o(merge_heads(attend(*qkv)))
        return self._feed_forward(r_BNE, modulation)

    def _feed_forward(self, x_BNE: Tensor, modulation: Modulation) -> Tensor:
        out_BNE: Tensor = self.ffn(_modulated(x_BNE, modulation.shift_ffn, modulation.scale_ffn))
        return x_BNE + modulation.gate_ffn * out_BNE


@dataclass(frozen=True, slots=True)
class AudioContext:
    """Audio tokens of the frames that have sound, and which tokens of the stream those are.

    Attributes:
        tokens_MLE: `[B * frames, L, E]`.
        frames: latent frames with sound; they are the first tokens of the stream.
        keep_B: 1 for samples that hear, 0 for those that do not; None: all hear.
    """

    tokens_MLE: Tensor
    frames: int
    area: int
    keep_B: Tensor | None

    def add(self, x_BNE: Tensor, norm: nn.Module, attention: nn.Module) -> Tensor:
        """Frame-wise cross-attention (TAVR eq. 3-5): visual tokens attend to their own frame's sound only."""
        heard = self.frames * self.area
        frames_MNE = norm(x_BNE[:, :heard]).reshape(-1, self.area, x_BNE.shape[-1])
        out_BNE = attention(frames_MNE, self.tokens_MLE).reshape(x_BNE.shape[0], heard, -1)
        if self.keep_B is not None:
            out_BNE = out_BNE * self.keep_B[:, None, None]
        return torch.cat([x_BNE[:, :heard] + out_BNE, x_BNE[:, heard:]], dim=1)


class VideoRefDiT(nn.Module):
    """Velocity `v = eps - x0` of noisy latents.

    The head predicts x0 and the network returns `(x_sigma - x0) / max(sigma, 0.05)`: at this size x-prediction learns
    faster than predicting v itself, and everything outside sees velocities only.

    Attributes:
        compute_dtype: of the matrix products (autocast); weights, norms and the residual stream stay fp32.
    """

    compute_dtype: torch.dtype = torch.float32

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim, patch_dim = config.dim, config.channels * config.patch**2
        self.patch_embedding = nn.Linear(patch_dim, dim)
        self.stream_embedding = nn.Parameter(torch.zeros(5, dim))
        self.text_embedding = nn.Embedding(config.text_buckets, dim)
        self.text_position = nn.Parameter(torch.randn(config.text_tokens, dim) * 0.02)
        self.audio_embedding = nn.Sequential(nn.Linear(config.audio_dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.audio_position = nn.Parameter(torch.randn(config.audio_tokens, dim) * 0.02)
        self.time_embedding = nn.Sequential(nn.Linear(config.frequency_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head_modulation = nn.Parameter(torch.zeros(1, 2, dim))
        self.head = nn.Linear(dim, patch_dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self,
        z_BCTHW: Tensor,
        sigma_B: Tensor,
        text_BL: Tensor,
        *,
        audio_BTLA: Tensor | None = None,
        audio_keep_B: Tensor | None = None,
        prefix_BCTHW: Tensor | None = None,
        anchor_BCHW: Tensor | None = None,
        reference_BCTHW: Tensor | None = None,
        reference: ReferenceCache | None = None,
    ) -> Tensor:
        """Velocity of `z_BCTHW`, same shape.

        Args:
            sigma_B: noise level, 1 is pure noise.
            text_BL: word numbers from `text.tokenize`.
            audio_BTLA: driving sound of the prefix and the noisy frames, in that order; None: silent network.
            audio_keep_B: 0 where a sample is to ignore its sound.
            prefix_BCTHW: clean latent frames that come just before `z`.
            anchor_BCHW: a clean latent image that sets the look.
            reference_BCTHW: latent frames of the person; or `reference`, their keys and values computed before.

        Raises:
            ValueError: audio that does not fit the frames, or both kinds of reference.
        """
        prefix_frames = 0 if prefix_BCTHW is None else prefix_BCTHW.shape[2]
        frames = z_BCTHW.shape[2]
        if audio_BTLA is not None and audio_BTLA.shape[1] != prefix_frames + frames:
            raise ValueError(
                f"audio holds {audio_BTLA.shape[1]} latent frames, prefix and latents {prefix_frames + frames}"
            )
        if reference_BCTHW is not None:
            if reference is not None:
                raise ValueError("give reference latents or their cache, not both")
            reference = self.encode_reference(reference_BCTHW)
        with torch.autocast(z_BCTHW.device.type, self.compute_dtype, enabled=self.compute_dtype != torch.float32):
            x_BNE, rotation_ND = self._generation_stream(z_BCTHW, prefix_BCTHW, anchor_BCHW)
            time_BE = self.time_embedding(_sinusoid(sigma_B, self.config.frequency_dim))
            time_B6E = torch.unflatten(self.time_projection(time_BE), 1, (6, -1)).float()
            text_BLE = self.text_embedding(text_BL) + self.text_position
            audio = self._audio(audio_BTLA, audio_keep_B, self._area(z_BCTHW))
            for index, block in enumerate(self._blocks()):
                pair = None if reference is None else reference.layers[index]
                modulation = block.modulation(time_B6E)
                x_BNE = block(x_BNE, modulation, rotation_ND, text_BLE=text_BLE, audio=audio, reference=pair)
            start = prefix_frames * self._area(z_BCTHW)
            x_BNE = x_BNE[:, start : start + frames * self._area(z_BCTHW)]
            shift, scale = (self.head_modulation + time_BE.float().unsqueeze(1)).chunk(2, dim=1)
            x0_BCTHW = self._unpatchify(self.head(_modulated(x_BNE, shift, scale)).float(), z_BCTHW)
        return (z_BCTHW - x0_BCTHW) / sigma_B.clamp(min=_SMALLEST_SIGMA)[:, None, None, None, None]

    def encode_reference(self, reference_BCTHW: Tensor) -> ReferenceCache:
        """Keys and values of reference latent frames, modulated with the sigma = 0 embedding."""
        batch, _, frames, height, width = reference_BCTHW.shape
        with torch.autocast(
            reference_BCTHW.device.type, self.compute_dtype, enabled=self.compute_dtype != torch.float32
        ):
            r_BNE = (self.patch_embedding(self._patchify(reference_BCTHW)) + self.stream_embedding[4]).float()
            times = [_REFERENCE_TIME + index for index in range(frames)]
            rotation_ND = self._rotation(times, height, width, reference_BCTHW.device)
            sigma_B = reference_BCTHW.new_zeros(batch)
            time_BE = self.time_embedding(_sinusoid(sigma_B, self.config.frequency_dim))
            time_B6E = torch.unflatten(self.time_projection(time_BE), 1, (6, -1)).float()
            layers = []
            for index, block in enumerate(self._blocks()):
                modulation = block.modulation(time_B6E)
                qkv = block.reference_keys(r_BNE, modulation, rotation_ND)
                layers.append((qkv[1], qkv[2]))
                if index + 1 < len(self.blocks):
                    r_BNE = block.forward_reference(r_BNE, qkv, modulation)
        return ReferenceCache(tuple(layers))

    def _generation_stream(
        self, z_BCTHW: Tensor, prefix_BCTHW: Tensor | None, anchor_BCHW: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        frames, height, width = z_BCTHW.shape[2:]
        # A first chunk begins with a one-frame latent, a later one never does: the network must know which.
        first = self.stream_embedding[0 if prefix_BCTHW is None else 1]
        kinds = [first, *[self.stream_embedding[1]] * (frames - 1)]
        times = [_FIRST_TIME + index for index in range(frames)]
        parts = [z_BCTHW]
        if prefix_BCTHW is not None:
            before = prefix_BCTHW.shape[2]
            parts.insert(0, prefix_BCTHW)
            kinds = [self.stream_embedding[2]] * before + kinds
            times = [_FIRST_TIME - before + index for index in range(before)] + times
        if anchor_BCHW is not None:
            parts.append(anchor_BCHW.unsqueeze(2))
            kinds.append(self.stream_embedding[3])
            times.append(_ANCHOR_TIME)
        x_BNE = self.patch_embedding(self._patchify(torch.cat(parts, dim=2)))
        kind_NE = torch.stack(kinds).repeat_interleave(self._area(z_BCTHW), dim=0)
        return (x_BNE + kind_NE).float(), self._rotation(times, height, width, z_BCTHW.device)

    def _audio(self, audio_BTLA: Tensor | None, keep_B: Tensor | None, area: int) -> AudioContext | None:
        if audio_BTLA is None:
            return None
        tokens_MLE = (self.audio_embedding(audio_BTLA) + self.audio_position).flatten(0, 1)
        return AudioContext(tokens_MLE, audio_BTLA.shape[1], area, keep_B)

    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))

    def _area(self, z_BCTHW: Tensor) -> int:
        return z_BCTHW.shape[3] * z_BCTHW.shape[4] // self.config.patch**2

    def _rotation(self, times: list[int], height: int, width: int, device: torch.device) -> Tensor:
        patch = self.config.patch
        positions_N3 = grid_positions(times, height // patch, width // patch, device=device)
        return rope_angles(positions_N3, self.config.dim // self.config.heads)

    def _patchify(self, z_BCTHW: Tensor) -> Tensor:
        batch, channels, frames, height, width = z_BCTHW.shape
        patch = self.config.patch
        grid = z_BCTHW.reshape(batch, channels, frames, height // patch, patch, width // patch, patch)
        return grid.permute(0, 2, 3, 5, 1, 4, 6).reshape(batch, -1, channels * patch**2)

    def _unpatchify(self, x_BNE: Tensor, like_BCTHW: Tensor) -> Tensor:
        batch, channels, frames, height, width = like_BCTHW.shape
        patch = self.config.patch
        grid = x_BNE.reshape(batch, frames, height // patch, width // patch, channels, patch, patch)
        return grid.permute(0, 4, 1, 2, 5, 3, 6).reshape(like_BCTHW.shape)


def _modulated(x_BNE: Tensor, shift_B1E: Tensor, scale_B1E: Tensor) -> Tensor:
    normed = functional.layer_norm(x_BNE, x_BNE.shape[-1:], eps=1e-6)
    return torch.addcmul(shift_B1E, normed, 1 + scale_B1E)


def _sinusoid(sigma_B: Tensor, dim: int) -> Tensor:
    """Wan's embedding of the timestep `1000 sigma`."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=sigma_B.device) / half)
    angles_BD = 1000 * sigma_B[:, None].float() * frequencies
    return torch.cat([angles_BD.cos(), angles_BD.sin()], dim=1)


def _tile(x_BHND: Tensor, times: int) -> Tensor:
    if x_BHND.shape[0] == 1:
        return x_BHND.expand(times, -1, -1, -1)
    return x_BHND.repeat(times, 1, 1, 1)
