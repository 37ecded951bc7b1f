"""The fused operations in plain torch, for CPUs and as what the kernels are held to.

Computed in fp32 (fp64 for fp64 inputs) and returned in the dtype of x. The rotation works on real numbers, since
torch.compile makes no code for complex ones.
"""

import torch
from torch import Tensor
from torch.nn import functional


def modulated_norm(x_BNE: Tensor, shift_B1E: Tensor, scale_B1E: Tensor, eps: float) -> Tensor:
    """LayerNorm without affine parameters, then `* (1 + scale) + shift` (AdaLN; Peebles and Xie 2023, 3.2)."""
    wide = _wide(x_BNE)
    normed_BNE = functional.layer_norm(x_BNE.to(wide), x_BNE.shape[-1:], eps=eps)
    return torch.addcmul(shift_B1E.to(wide), normed_BNE, 1 + scale_B1E.to(wide)).to(x_BNE.dtype)


def norm_rope(  # noqa: PLR0917  # in the order of the formula
    x_BNE: Tensor, weight_E: Tensor, cos_BND2: Tensor, sin_BND2: Tensor, heads: int, eps: float
) -> Tensor:
    """RMSNorm over all heads together, then rotation of each head's neighbouring pairs (Su et al. 2021, eq. 34).

    Args:
        cos_BND2, sin_BND2: of the angles of the pairs, `[1 or B, N, D / 2]`.

    Returns:
        `[B, N, heads, D]`.
    """
    wide = _wide(x_BNE)
    normed_BNE = functional.rms_norm(x_BNE.to(wide), x_BNE.shape[-1:], weight_E.to(wide), eps)
    x_BNHD = normed_BNE.view(*x_BNE.shape[:-1], heads, -1)
    # As x * cos + swapped * (-sin, sin): on a CPU faster than to take the pairs apart and to stack them again.
    swapped_BNHD = x_BNHD.view(*x_BNHD.shape[:-1], -1, 2).flip(-1).flatten(-2)
    cos_BN1D = cos_BND2.to(wide).repeat_interleave(2, dim=-1).unsqueeze(2)
    sin_BN1D = torch.stack([-sin_BND2, sin_BND2], dim=-1).to(wide).flatten(-2).unsqueeze(2)
    return torch.addcmul(x_BNHD * cos_BN1D, swapped_BNHD, sin_BN1D).to(x_BNE.dtype)


def gated_residual(x_BNE: Tensor, y_BNE: Tensor, gate_B1E: Tensor) -> Tensor:
    """`x + y * gate`."""
    wide = _wide(x_BNE)
    return torch.addcmul(x_BNE.to(wide), y_BNE.to(wide), gate_B1E.to(wide)).to(x_BNE.dtype)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
