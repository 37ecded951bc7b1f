"""A block of the network: self-attention, text and frame-wise audio cross-attention, feed-forward.

Both streams run through the same weights. N tokens of a stream, E embedding, H heads, D head dimension, L audio tokens
of a latent frame, T latent frames.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from helios_model.attention import KeyValue, attend, generation_attention
from helios_model.checkpointing import Checkpointing, run_block
from helios_model.config import ModelConfig
from helios_model.kernels import gated_residual, modulated_norm, norm_rope
from helios_model.rope import Rotation
from helios_model.streams import StreamPlan


class Modulation(NamedTuple):
    """The six AdaLN vectors of a block, fp32, each `[B, 1, E]`."""

    shift_attention: Tensor
    scale_attention: Tensor
    gate_attention: Tensor
    shift_ffn: Tensor
    scale_ffn: Tensor
    gate_ffn: Tensor


class Sound(NamedTuple):
    """Audio tokens `[B, T, L, E]` of a stream's frames; `keep_B` is 0 for samples that do not hear, 1 for others."""

    tokens_BTLE: Tensor
    keep_B: Tensor | None


class AdaLN(nn.Module):
    """A block's own offset to the time embedding's six vectors; a module, so that ZeRO 3 gathers its weight."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, 6, dim) / math.sqrt(dim))

    def forward(self, time_B6E: Tensor) -> Modulation:
        return Modulation(*(self.weight.float() + time_B6E).chunk(6, dim=1))


class HeadNorm(nn.Module):
    """RMS-norm over all heads together, then each head's rotation: `[B, N, E]` to `[B, N, H, D]`."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x_BNE: Tensor, turned: Rotation | None = None) -> Tensor:
        if turned is not None:
            return norm_rope(x_BNE, self.weight, *turned, self.heads, self.eps)
        normed_BNE = nn.functional.rms_norm(x_BNE.float(), (x_BNE.shape[-1],), self.weight.float(), self.eps)
        return torch.unflatten(normed_BNE.to(x_BNE.dtype), -1, (self.heads, -1))


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = HeadNorm(dim, heads, eps), HeadNorm(dim, heads, eps)

    def project(self, x_BNE: Tensor, plan: StreamPlan) -> tuple[Tensor, KeyValue]:
        """Queries, keys and values of a stream, `[B, N, H, D]`; under Ulysses all tokens of this rank's heads."""
        q_BNHD = self.norm_q(self.q(x_BNE), plan.rotation)
        k_BNHD = self.norm_k(self.k(x_BNE), plan.rotation)
        v_BNHD = torch.unflatten(self.v(x_BNE), -1, (self.heads, -1))
        if plan.ulysses is None:
            return q_BNHD, KeyValue(k_BNHD, v_BNHD)
        together = plan.ulysses.to_heads(torch.cat([q_BNHD, k_BNHD, v_BNHD]), plan.tokens)
        q, k, v = together.chunk(3)
        return q, KeyValue(k, v)

    def finish(self, o_BNHD: Tensor, plan: StreamPlan) -> Tensor:
        """Attention's output through the last matrix, `[B, N, E]`."""
        if plan.ulysses is not None:
            o_BNHD = plan.ulysses.to_tokens(o_BNHD)
        out_BNE: Tensor = self.o(o_BNHD.flatten(2))
        return out_BNE


class CrossAttention(nn.Module):
    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = HeadNorm(dim, heads, eps), HeadNorm(dim, heads, eps)

    def forward(self, x_BNE: Tensor, context_BME: Tensor) -> Tensor:
        seen = KeyValue(self.norm_k(self.k(context_BME)), torch.unflatten(self.v(context_BME), -1, (self.heads, -1)))
        out_BNE: Tensor = self.o(attend(self.norm_q(self.q(x_BNE)), seen).flatten(2))
        return out_BNE


class Block(nn.Module):
    """The generation stream sees itself and the references, the reference stream itself only."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, heads, eps = config.dim, config.heads, config.eps
        self.eps = eps
        self.modulation = AdaLN(dim)
        self.self_attn = SelfAttention(dim, heads, eps)
        self.norm_text = nn.LayerNorm(dim, eps=eps)
        self.cross_attn = CrossAttention(dim, heads, eps)
        if config.audio is not None:
            self.norm_audio = nn.LayerNorm(dim, eps=eps)
            self.audio_attn = CrossAttention(dim, heads, eps)
            nn.init.zeros_(self.audio_attn.o.weight)
            nn.init.zeros_(self.audio_attn.o.bias)
        self.ffn = nn.Sequential(nn.Linear(dim, config.ffn), nn.GELU(approximate="tanh"), nn.Linear(config.ffn, dim))

    def forward(
        self,
        x_BNE: Tensor,
        time_B6E: Tensor,
        plan: StreamPlan,
        *,
        text_BLE: Tensor | None = None,
        sound: Sound | None = None,
        reference: KeyValue | None = None,
        checkpointing: Checkpointing = "none",
    ) -> Tensor:
        """The generation stream, or any that has no other to be seen by."""
        given = {"text_BLE": text_BLE, "sound": sound, "reference": reference}
        return run_block(checkpointing, self._generation, x_BNE, time_B6E, plan, **given)

    def forward_reference(
        self,
        r_BNE: Tensor,
        time_B6E: Tensor,
        plan: StreamPlan,
        sound: Sound | None,
        checkpointing: Checkpointing = "none",
    ) -> tuple[Tensor, KeyValue]:
        """The reference stream, the second dense call `O_r = Attn(r, r)`; with the keys and values that g sees."""
        return run_block(checkpointing, self._reference, r_BNE, time_B6E, plan, sound)

    def reference_keys(self, r_BNE: Tensor, time_B6E: Tensor, plan: StreamPlan) -> KeyValue:
        """Keys and values alone: all that is needed of the last layer."""
        return self._project(r_BNE, self.modulation(time_B6E), plan)[1]

    def _generation(
        self,
        x_BNE: Tensor,
        time_B6E: Tensor,
        plan: StreamPlan,
        *,
        text_BLE: Tensor | None,
        sound: Sound | None,
        reference: KeyValue | None,
    ) -> Tensor:
        modulation = self.modulation(time_B6E)
        q_BNHD, own = self._project(x_BNE, modulation, plan)
        attention_BNHD = generation_attention(q_BNHD, own, reference, plan.windows)
        return self._after(x_BNE, attention_BNHD, modulation, plan, text_BLE=text_BLE, sound=sound)

    def _reference(
        self, r_BNE: Tensor, time_B6E: Tensor, plan: StreamPlan, sound: Sound | None
    ) -> tuple[Tensor, KeyValue]:
        modulation = self.modulation(time_B6E)
        q_BNHD, own = self._project(r_BNE, modulation, plan)
        return self._after(r_BNE, attend(q_BNHD, own), modulation, plan, text_BLE=None, sound=sound), own

    def _project(self, x_BNE: Tensor, modulation: Modulation, plan: StreamPlan) -> tuple[Tensor, KeyValue]:
        normed_BNE = modulated_norm(x_BNE, modulation.shift_attention, modulation.scale_attention, self.eps)
        return self.self_attn.project(normed_BNE, plan)

    def _after(
        self,
        x_BNE: Tensor,
        attention_BNHD: Tensor,
        modulation: Modulation,
        plan: StreamPlan,
        *,
        text_BLE: Tensor | None,
        sound: Sound | None,
    ) -> Tensor:
        x_BNE = gated_residual(x_BNE, self.self_attn.finish(attention_BNHD, plan), modulation.gate_attention)
        if text_BLE is not None:
            x_BNE = x_BNE + self.cross_attn(self.norm_text(x_BNE), text_BLE)
        if sound is not None:
            x_BNE = self._hear(x_BNE, sound, plan)
        normed_BNE = modulated_norm(x_BNE, modulation.shift_ffn, modulation.scale_ffn, self.eps)
        return gated_residual(x_BNE, self.ffn(normed_BNE), modulation.gate_ffn)

    def _hear(self, x_BNE: Tensor, sound: Sound, plan: StreamPlan) -> Tensor:
        """Frame-wise cross-attention (TAVR eq. 3-5): tokens attend to their own frame's sound only."""
        normed_BNE = self.norm_audio(x_BNE)
        for part in plan.hearing:
            packed_BTWE = part.pack(normed_BNE)
            heard_BTLE = sound.tokens_BTLE[:, part.first : part.first + part.frames]
            out_BTWE = self.audio_attn(packed_BTWE.flatten(0, 1), heard_BTLE.flatten(0, 1)).view_as(packed_BTWE)
            if sound.keep_B is not None:
                out_BTWE = out_BTWE * sound.keep_B.to(x_BNE.dtype)[:, None, None, None]
            x_BNE = part.add(x_BNE, out_BTWE)
        return x_BNE
