import pytest
import torch

from helios_model.rope import apply_rope, axis_dims, grid_positions, rope_angles


@pytest.mark.parametrize("head_dim", [16, 32, 128])
def test_the_axes_share_a_head_in_even_parts(head_dim: int) -> None:
    """Time, height and width get even numbers of dimensions that add up (Wan's 44, 42, 42 for 128)."""
    dims = axis_dims(head_dim)
    assert sum(dims) == head_dim
    assert all(dim % 2 == 0 for dim in dims)
    assert axis_dims(128) == (44, 42, 42)


def test_scores_depend_on_distances_only() -> None:
    """Moving all tokens by the same offset in time leaves query-key products as they are."""
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 1, 1, 12, 16, generator=generator).unbind(0)

    def scores(start: int) -> torch.Tensor:
        rotation = rope_angles(grid_positions([start, start + 1, start + 2], 2, 2, device=q.device), 16)
        return apply_rope(q, rotation) @ apply_rope(k, rotation).transpose(-1, -2)

    assert torch.allclose(scores(0), scores(40), atol=1e-4)


def test_rotation_keeps_lengths_and_type() -> None:
    """Rotary embedding turns vectors; it does not stretch them, and it returns the type it was given."""
    x = torch.randn(1, 2, 4, 16, dtype=torch.bfloat16)
    turned = apply_rope(x, rope_angles(grid_positions([3], 2, 2, device=x.device), 16))
    assert turned.dtype == torch.bfloat16
    assert torch.allclose(turned.float().norm(dim=-1), x.float().norm(dim=-1), rtol=0.02)
