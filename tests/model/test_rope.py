import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

from helios_model.kernels import norm_rope
from helios_model.rope import axis_dims, grid_positions, rotation


@pytest.mark.parametrize("head_dim", [16, 32, 128])
def test_the_axes_share_a_head_in_even_parts(head_dim: int) -> None:
    """Time, height and width get even numbers of dimensions that add up (Wan's 44, 42, 42 for 128)."""
    dims = axis_dims(head_dim)
    assert sum(dims) == head_dim
    assert all(dim % 2 == 0 for dim in dims)
    assert axis_dims(128) == (44, 42, 42)


def test_angles_are_those_of_wan() -> None:
    """Cosines and sines of a grid equal diffusers' table, which repeats each for both numbers of a pair."""
    upstream = WanRotaryPosEmbed(attention_head_dim=128, patch_size=(1, 2, 2), max_seq_len=1024)
    cos, sin = upstream(torch.zeros(1, 16, 3, 10, 6))
    ours = rotation(grid_positions([0, 1, 2], 5, 3).unsqueeze(0), 128)
    assert torch.allclose(cos[0, :, 0, ::2], ours.cos_BND[0], atol=1e-6)
    assert torch.allclose(sin[0, :, 0, 1::2], ours.sin_BND[0], atol=1e-6)


def test_scores_depend_on_distances_only() -> None:
    """Moving all tokens by the same offset in time, below zero as well, leaves query-key products as they are."""
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 1, 12, 16, generator=generator).unbind(0)

    def scores(start: int) -> torch.Tensor:
        turned = rotation(grid_positions([start, start + 1, start + 2], 2, 2).unsqueeze(0), 16)
        q_NHD, k_NHD = (norm_rope(x, torch.ones(16), *turned, 1, 1e-6)[0, :, 0] for x in (q, k))
        return q_NHD @ k_NHD.T

    assert torch.allclose(scores(0), scores(40), atol=1e-4)
    assert torch.allclose(scores(0), scores(-3), atol=1e-4)
