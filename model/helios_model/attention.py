"""Attention as small functions of tensors; B batch, H heads, N tokens, D head dimension."""

from torch import Tensor, autocast, cat
from torch.nn.functional import scaled_dot_product_attention


def split_heads(x_BNC: Tensor, heads: int) -> Tensor:
    """`[B, N, H * D]` to `[B, H, N, D]`."""
    return x_BNC.reshape(*x_BNC.shape[:2], heads, -1).transpose(1, 2)


def merge_heads(x_BHND: Tensor) -> Tensor:
    """`[B, H, N, D]` to `[B, N, H * D]`."""
    return x_BHND.transpose(1, 2).flatten(2)


def attend(q_BHND: Tensor, k_BHMD: Tensor, v_BHMD: Tensor) -> Tensor:
    """Dense softmax attention, `[B, H, N, D]`.

    Always in the type of its inputs: torch's bf16 attention on a CPU takes five times as long backwards as fp32.
    """
    with autocast(q_BHND.device.type, enabled=False):
        out_BHND: Tensor = scaled_dot_product_attention(q_BHND, k_BHMD, v_BHMD)
    return out_BHND


def generation_attention(
    q_BHGD: Tensor, k_BHGD: Tensor, v_BHGD: Tensor, reference: tuple[Tensor, Tensor] | None
) -> Tensor:
    """First call of Sparse Reference Attention, `O_g = Attn(g, [g, r])` (Avatar V; TAVR eq. 2).

    The second call is plain `attend(r, r, r)`: references never see the generation, so their keys and values
    `[B, H, R, D]` are constants of a request and are passed in ready-made.
    """
    if reference is None:
        return attend(q_BHGD, k_BHGD, v_BHGD)
    k_BHRD, v_BHRD = reference
    return attend(q_BHGD, cat([k_BHGD, k_BHRD], dim=2), cat([v_BHGD, v_BHRD], dim=2))
