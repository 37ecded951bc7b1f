"""Memory-bound parts of a transformer block, each fused into one pass over the tokens.

B batch, N tokens, E embedding, H heads, D head dimension. Everything is computed in fp32 and returned in the dtype of
x; shift, scale and gate may be of any floating dtype.
"""

from helios_model.kernels.reference import gated_residual, modulated_norm, norm_rope

__all__ = ["gated_residual", "modulated_norm", "norm_rope"]
