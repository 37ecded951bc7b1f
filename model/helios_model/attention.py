"""Attention as small functions of tensors; B batch, N and M tokens, H heads, D head dimension."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


class KeyValue(NamedTuple):
    """Keys and values of some tokens, each `[B, M, H, D]`."""

    k_BMHD: Tensor
    v_BMHD: Tensor

    def and_then(self, more: "KeyValue | None") -> "KeyValue":
        """These tokens followed by others."""
        if more is None:
            return self
        return KeyValue(torch.cat([self.k_BMHD, more.k_BMHD], 1), torch.cat([self.v_BMHD, more.v_BMHD], 1))

    def part(self, start: int, stop: int | None = None) -> "KeyValue":
        return KeyValue(self.k_BMHD[:, start:stop], self.v_BMHD[:, start:stop])


@dataclass(frozen=True, slots=True)
class Windows:
    """Local temporal windows (refiner): frames in groups of `size` see their own group and its two neighbours.

    Attributes:
        frames: that are cut into windows; their tokens come first in the stream.
        area: tokens of a frame.
    """

    frames: int
    area: int
    size: int


def attend(q_BNHD: Tensor, seen: KeyValue) -> Tensor:
    """Dense softmax attention, `[B, N, H, D]`.

    On a CPU always in fp32: torch's bf16 attention takes five times as long backwards there.
    """
    dtype = torch.float32 if q_BNHD.device.type == "cpu" else q_BNHD.dtype
    q, k, v = (x.to(dtype).transpose(1, 2) for x in (q_BNHD, *seen))
    with torch.autocast(q.device.type, enabled=False):
        out_BHND: Tensor = scaled_dot_product_attention(q, k, v)
    return out_BHND.transpose(1, 2).to(q_BNHD.dtype)


def generation_attention(
    q_BGHD: Tensor, generation: KeyValue, reference: KeyValue | None, windows: Windows | None = None
) -> Tensor:
    """First call of Sparse Reference Attention, `O_g = Attn(g, [g, r])` (Avatar V; TAVR eq. 2).

    The second call is plain `attend(r, r)`: references never see the generation, so their keys and values are
    constants of a request and are passed in ready-made.

    Args:
        windows: cut the frames of g into local windows; the tokens behind them and the references are seen by all.
    """
    if windows is None:
        return attend(q_BGHD, generation.and_then(reference))
    end, step = windows.frames * windows.area, windows.size * windows.area
    everywhere = generation.part(end).and_then(reference)
    parts = [
        attend(q_BGHD[:, start : min(start + step, end)], near.and_then(everywhere))
        for start in range(0, end, step)
        for near in (generation.part(max(start - step, 0), min(start + 2 * step, end)),)
    ]
    if q_BGHD.shape[1] > end:
        parts.append(attend(q_BGHD[:, end:], generation.and_then(reference)))
    return torch.cat(parts, dim=1)
