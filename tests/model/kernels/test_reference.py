"""The plain torch code says what its formulas say."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from helios_model import kernels


def _randn(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_modulated_norm_has_the_moments_that_scale_and_shift_ask_for() -> None:
    x, shift, scale = _randn(2, 5, 96, seed=0), _randn(2, 1, 96, seed=1), _randn(2, 1, 96, seed=2)
    normed = (kernels.modulated_norm(3 * x + 7, shift, scale, 0.0) - shift) / (1 + scale)
    torch.testing.assert_close(normed.mean(-1), torch.zeros(2, 5).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(normed.var(-1, correction=0), torch.ones(2, 5).double())


@pytest.mark.parametrize("batch", [1, 2])
def test_norm_rope_is_a_product_of_complex_numbers(batch: int) -> None:
    x, weight, angles = _randn(2, 5, 24, seed=0), _randn(24, seed=1), _randn(batch, 5, 3, seed=2)
    rotated = kernels.norm_rope(x, weight, angles.cos(), angles.sin(), 4, 1e-6)
    normed = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight
    turned = (
        torch.view_as_complex(normed.view(2, 5, 4, 3, 2)) * torch.polar(torch.ones_like(angles), angles)[:, :, None]
    )
    torch.testing.assert_close(rotated, torch.view_as_real(turned).flatten(-2))


def test_gated_residual_adds_what_the_gate_lets_through() -> None:
    x, y, gate = _randn(2, 5, 8, seed=0), _randn(2, 5, 8, seed=1), _randn(2, 1, 8, seed=2)
    torch.testing.assert_close(kernels.gated_residual(x, y, gate), x + y * gate)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_all_compute_wide_and_return_the_dtype_of_x(dtype: torch.dtype) -> None:
    x, y, one = _randn(2, 7, 96, seed=0, dtype=dtype), _randn(2, 7, 96, seed=1), _randn(2, 1, 96, seed=2)
    weight, angles = _randn(96, seed=3), _randn(1, 7, 4, seed=4)
    calls: list[Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]] = [
        lambda x, to: kernels.modulated_norm(x, to(one), to(one), 1e-6),
        lambda x, to: kernels.norm_rope(x, to(weight), to(angles.cos()), to(angles.sin()), 12, 1e-6),
        lambda x, to: kernels.gated_residual(x, to(y), to(one)),
    ]
    for call in calls:
        out = call(x, Tensor.float)
        assert out.dtype == dtype
        # Rounding once, at the end, is all that a narrow dtype costs.
        torch.testing.assert_close(
            out, call(x.double(), Tensor.double).to(dtype), atol=1e-5, rtol=torch.finfo(dtype).eps
        )
