"""The Triton kernels against the plain torch code in fp64. `test_triton.py` runs this file in a process of its own.

That is because Triton decides on import whether it interprets: with TRITON_INTERPRET=1 the kernels run on the CPU, line
by line in numpy; without it on the CUDA device.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from helios_model.kernels import reference, triton_gated_residual, triton_modulated_norm, triton_norm_rope
from helios_model.kernels.launch import Launch, row_launch

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
EPS = 1e-6
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


class Shape(NamedTuple):
    batch: int
    tokens: int
    heads: int
    head_dim: int

    @property
    def x(self) -> tuple[int, int, int]:
        return self.batch, self.tokens, self.heads * self.head_dim

    @property
    def vector(self) -> tuple[int, int, int]:
        return self.batch, 1, self.heads * self.head_dim


SHAPES = [Shape(1, 1, 3, 6), Shape(2, 7, 6, 32), Shape(1, 7, 2, 126), Shape(2, 3, 3, 64), Shape(1, 2, 40, 128)]
Operation = Callable[..., Tensor]


def randn(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def angles(batch: int, shape: Shape) -> tuple[Tensor, Tensor]:
    turned = randn(batch, shape.tokens, shape.head_dim // 2, seed=7)
    return turned.cos(), turned.sin()


def results(operation: Operation, inputs: list[Tensor], constants: tuple[Any, ...], grad: Tensor) -> list[Tensor]:
    """What comes out, and the gradients to all inputs."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    out = operation(*leaves, *constants)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]


def agree(fused: Operation, plain: Operation, inputs: list[Tensor], constants: tuple[Any, ...] = ()) -> None:
    """Results and gradients differ from fp64's by no more than a rounding to their own dtypes."""
    wide = [value.double() if isinstance(value, Tensor) else value for value in constants]
    with torch.no_grad():
        grad = randn(*plain(*inputs, *constants).shape, seed=9, dtype=inputs[0].dtype)
    mine = results(fused, inputs, constants, grad)
    truth = results(plain, [tensor.double() for tensor in inputs], tuple(wide), grad.double())
    assert [tensor.dtype for tensor in mine] == [inputs[0].dtype, *(tensor.dtype for tensor in inputs)]
    for got, want in zip(mine, truth, strict=True):
        rounding = max(torch.finfo(got.dtype).eps, 1e-5)
        torch.testing.assert_close(got.double(), want, rtol=rounding, atol=2e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_modulated_norm(shape: Shape, dtype: torch.dtype) -> None:
    inputs = [randn(*shape.x, seed=0, dtype=dtype), randn(*shape.vector, seed=1), randn(*shape.vector, seed=2)]
    agree(triton_modulated_norm.modulated_norm, reference.modulated_norm, inputs, (EPS,))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_norm_rope(shape: Shape, dtype: torch.dtype) -> None:
    inputs = [randn(*shape.x, seed=0, dtype=dtype), randn(shape.x[-1], seed=1)]
    agree(triton_norm_rope.norm_rope, reference.norm_rope, inputs, (*angles(1, shape), shape.heads, EPS))


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_programs_walk_over_several_rows_the_last_of_a_sample_over_fewer(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(batch: int, tokens: int, dim: int, **_: int) -> Launch:
        usual = row_launch(batch, tokens, dim, programs=1)
        return usual._replace(rows=rows, programs=batch * -(-tokens // rows))

    monkeypatch.setattr(triton_modulated_norm, "row_launch", launch)
    monkeypatch.setattr(triton_norm_rope, "row_launch", launch)
    test_modulated_norm(Shape(2, 7, 3, 6), torch.float32)
    test_norm_rope(Shape(2, 7, 3, 6), torch.float32)
    test_norm_rope_turns_each_sample_by_its_own_angles()


def test_norm_rope_turns_each_sample_by_its_own_angles() -> None:
    shape = Shape(2, 7, 3, 6)
    inputs = [randn(*shape.x, seed=0), randn(shape.x[-1], seed=1)]
    agree(triton_norm_rope.norm_rope, reference.norm_rope, inputs, (*angles(2, shape), shape.heads, EPS))


@pytest.mark.parametrize("shape", [*SHAPES, Shape(2, 70, 3, 6)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gated_residual(shape: Shape, dtype: torch.dtype) -> None:
    inputs = [randn(*shape.x, seed=0, dtype=dtype), randn(*shape.x, seed=1, dtype=dtype), randn(*shape.vector, seed=2)]
    agree(triton_gated_residual.gated_residual, reference.gated_residual, inputs)


def test_gated_residual_takes_a_narrower_branch() -> None:
    shape = Shape(2, 7, 3, 6)
    inputs = [randn(*shape.x, seed=0), randn(*shape.x, seed=1, dtype=torch.bfloat16), randn(*shape.vector, seed=2)]
    agree(triton_gated_residual.gated_residual, reference.gated_residual, inputs)


def test_vectors_may_be_narrow_shared_by_the_batch_and_slices() -> None:
    shape = Shape(2, 5, 3, 6)
    x = randn(2, shape.x[-1], 5, seed=0).transpose(1, 2)
    shift, scale, gate = randn(1, 3, shape.x[-1], seed=1, dtype=torch.bfloat16).chunk(3, dim=1)
    weight = randn(2 * shape.x[-1], seed=2, dtype=torch.bfloat16)[::2]
    turns = [part.expand(2, -1, -1) for part in angles(1, shape)]
    agree(triton_modulated_norm.modulated_norm, reference.modulated_norm, [x, shift, scale], (EPS,))
    agree(triton_gated_residual.gated_residual, reference.gated_residual, [x, x.flip(1), gate])
    agree(triton_norm_rope.norm_rope, reference.norm_rope, [x, weight], (*turns, shape.heads, EPS))


def test_a_row_far_from_zero_keeps_its_variance() -> None:
    x = 1000 + randn(1, 2, 192, seed=0)
    shift, scale = (randn(1, 1, 192, seed=seed) for seed in (1, 2))
    out = triton_modulated_norm.modulated_norm(x, shift, scale, EPS)
    want = reference.modulated_norm(x.double(), shift.double(), scale.double(), EPS)
    torch.testing.assert_close(out.double(), want, rtol=1e-3, atol=1e-3)


def test_the_same_twice_gives_the_same_bits() -> None:
    shape = Shape(2, 7, 3, 6) if DEVICE == "cpu" else Shape(2, 3000, 12, 128)
    x, y = (randn(*shape.x, seed=seed, dtype=torch.bfloat16) for seed in (0, 1))
    vectors = [randn(*shape.vector, seed=seed) for seed in (2, 3)]
    weight, turns = randn(shape.x[-1], seed=4), (*angles(1, shape), shape.heads, EPS)
    runs: list[Callable[[], list[Tensor]]] = [
        partial(results, triton_norm_rope.norm_rope, [x, weight], turns, y.view(*x.shape[:2], shape.heads, -1)),
        partial(results, triton_modulated_norm.modulated_norm, [x, *vectors], (EPS,), y),
        partial(results, triton_gated_residual.gated_residual, [x, y, vectors[0]], (), x),
    ]
    for run in runs:
        for first, second in zip(run(), run(), strict=True):
            assert torch.equal(first, second)


def block(x: Tensor, vectors: list[Tensor], weight: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    shift, scale, gate = vectors
    normed = triton_modulated_norm.modulated_norm(x, shift, scale, EPS)
    turned = triton_norm_rope.norm_rope(normed, weight, *turns, 3, EPS)
    return triton_gated_residual.gated_residual(x, turned.flatten(2), gate)


def test_compiles_into_one_graph() -> None:
    shape = Shape(2, 5, 3, 6)
    x, vectors = randn(*shape.x, seed=0), [randn(*shape.vector, seed=seed) for seed in (1, 2, 3)]
    weight, turns = randn(shape.x[-1], seed=4), angles(1, shape)

    def run(x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor, weight: Tensor) -> Tensor:
        return block(x, [shift, scale, gate], weight, turns)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    inputs = [x, *vectors, weight]
    for eager, traced in zip(results(run, inputs, (), x), results(compiled, inputs, (), x), strict=True):
        torch.testing.assert_close(traced, eager, rtol=0, atol=0)


def test_operators_keep_their_word_to_torch() -> None:
    """Schemas, fake results and autograd registrations (`torch.library.opcheck`)."""
    shape = Shape(2, 3, 3, 6)
    x, y = (randn(*shape.x, seed=seed).requires_grad_() for seed in (0, 1))
    shift, scale, gate = (randn(*shape.vector, seed=seed).requires_grad_() for seed in (2, 3, 4))
    weight, turns = randn(shape.x[-1], seed=5).requires_grad_(), angles(1, shape)
    operators = torch.ops.helios_model
    torch.library.opcheck(operators.modulated_norm, (x, shift, scale, EPS))
    torch.library.opcheck(operators.norm_rope, (x, weight, *turns, EPS))
    torch.library.opcheck(operators.gated_residual, (x, y, gate))
    x, y, scale, gate, weight = (tensor.detach() for tensor in (x, y, scale, gate, weight))
    mean, rstd = randn(2, 3, seed=6), randn(2, 3, seed=7)
    torch.library.opcheck(operators.modulated_norm_backward, (y, x, scale, mean, rstd))
    torch.library.opcheck(operators.norm_rope_backward, (y, x, weight, *turns, rstd))
    torch.library.opcheck(operators.gated_residual_backward, (x, y, gate))
