"""Memory-bound parts of a transformer block, each fused into one pass over the tokens.

Tensors on a CUDA device go through Triton, all others, and shapes that the kernels do not know, through plain torch
(`reference`), which says the same. B batch, N tokens, E embedding, H heads, D head dimension. Everything is computed in
fp32 and returned in the dtype of x; shift, scale and gate may be of any floating dtype.
"""

from importlib.util import find_spec

import torch
from torch import Tensor

from helios_model.kernels import reference
from helios_model.kernels.launch import LARGEST_ROW

__all__ = ["gated_residual", "modulated_norm", "norm_rope"]

TRITON = torch.backends.cuda.is_built() and find_spec("triton") is not None  # type: ignore[no-untyped-call]
"""Without CUDA in torch there is nothing for Triton to do, and its import takes most of a second."""

if TRITON:
    from helios_model.kernels import triton_gated_residual, triton_modulated_norm, triton_norm_rope

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def modulated_norm(x_BNE: Tensor, shift_B1E: Tensor, scale_B1E: Tensor, eps: float) -> Tensor:
    """LayerNorm without affine parameters, then `* (1 + scale) + shift`."""
    if _fused(x_BNE) and _one_row(shift_B1E) and _one_row(scale_B1E):
        return triton_modulated_norm.modulated_norm(x_BNE, shift_B1E, scale_B1E, eps)
    return reference.modulated_norm(x_BNE, shift_B1E, scale_B1E, eps)


def norm_rope(  # noqa: PLR0917  # in the order of the formula
    x_BNE: Tensor, weight_E: Tensor, cos_BND2: Tensor, sin_BND2: Tensor, heads: int, eps: float
) -> Tensor:
    """RMSNorm over all heads together, then rotation of each head's neighbouring pairs.

    Args:
        cos_BND2, sin_BND2: of the angles of the pairs, `[1 or B, N, D / 2]`.

    Returns:
        `[B, N, heads, D]`.
    """
    if _fused(x_BNE) and not cos_BND2.requires_grad and not sin_BND2.requires_grad:
        return triton_norm_rope.norm_rope(x_BNE, weight_E, cos_BND2, sin_BND2, heads, eps)
    return reference.norm_rope(x_BNE, weight_E, cos_BND2, sin_BND2, heads, eps)


def gated_residual(x_BNE: Tensor, y_BNE: Tensor, gate_B1E: Tensor) -> Tensor:
    """`x + y * gate`."""
    if _fused(x_BNE) and _fused(y_BNE) and x_BNE.shape == y_BNE.shape and _one_row(gate_B1E):
        return triton_gated_residual.gated_residual(x_BNE, y_BNE, gate_B1E)
    return reference.gated_residual(x_BNE, y_BNE, gate_B1E)


def _fused(x: Tensor) -> bool:
    known = x.ndim == 3 and x.dtype in _DTYPES and x.shape[-1] <= LARGEST_ROW
    return TRITON and x.is_cuda and known and x.numel() > 0


def _one_row(vector: Tensor) -> bool:
    return vector.ndim == 3 and vector.shape[1] == 1
