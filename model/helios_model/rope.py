"""Rotary position embedding over time, height and width (Wan2.1's split of the head dimension)."""

import torch
from torch import Tensor


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """How many of a head's dimensions turn with time, height and width; all even, in sum `head_dim`."""
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


def rope_angles(positions_N3: Tensor, head_dim: int, theta: float = 10_000.0) -> Tensor:
    """Unit complex rotations `[N, head_dim / 2]` of integer positions (time, height, width)."""
    parts = []
    for axis, dim in enumerate(axis_dims(head_dim)):
        frequencies = theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        parts.append(positions_N3[:, axis, None].double().cpu() * frequencies)
    angles_ND = torch.cat(parts, dim=1)
    return torch.polar(torch.ones_like(angles_ND), angles_ND).to(torch.complex64).to(positions_N3.device)


def apply_rope(x_BHND: Tensor, rotation_ND: Tensor) -> Tensor:
    """Rotate neighbouring pairs of the last dimension; computed in fp32, returned in the input's type."""
    pairs = torch.view_as_complex(x_BHND.float().reshape(*x_BHND.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotation_ND).flatten(-2).type_as(x_BHND)


def grid_positions(times: list[int], height: int, width: int, *, device: torch.device) -> Tensor:
    """Positions `[len(times) * height * width, 3]` of tokens in time, row, column order."""
    time, row, column = torch.meshgrid(
        torch.tensor(times, device=device),
        torch.arange(height, device=device),
        torch.arange(width, device=device),
        indexing="ij",
    )
    return torch.stack([time, row, column], dim=-1).reshape(-1, 3)
