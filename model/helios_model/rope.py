"""Rotary position embedding over time, height and width (Wan2.1's split of the head dimension)."""

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """Cosines and sines, fp32 `[1 or B, N, D / 2]`, of the angles by which neighbouring pairs of a head turn."""

    cos_BND: Tensor
    sin_BND: Tensor


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """How many of a head's dimensions turn with time, height and width; all even, in sum `head_dim`."""
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


def rotation(positions_BN3: Tensor, head_dim: int, theta: float = 10_000.0) -> Rotation:
    """Rotations of whole-number positions `[1 or B, N, 3]` (time, height, width); angles are computed in fp64."""
    parts = []
    for axis, dim in enumerate(axis_dims(head_dim)):
        frequencies = theta ** (-torch.arange(0, dim, 2, dtype=torch.float64, device="cpu") / dim)
        parts.append(positions_BN3[..., axis, None].double().cpu() * frequencies)
    angles_BND = torch.cat(parts, dim=-1)
    device = positions_BN3.device
    return Rotation(angles_BND.cos().float().to(device), angles_BND.sin().float().to(device))


def grid_positions(times: list[int], height: int, width: int) -> Tensor:
    """Positions `[len(times) * height * width, 3]` of tokens in time, row, column order."""
    time, row, column = torch.meshgrid(torch.tensor(times), torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([time, row, column], dim=-1).reshape(-1, 3)
