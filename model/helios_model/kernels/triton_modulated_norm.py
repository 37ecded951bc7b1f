"""LayerNorm with AdaLN modulation in Triton; one row of E in the registers of a program at a time.

Backward needs sums over tokens for shift and scale: each program adds up some rows of a sample in a fixed order and
writes its part, and the parts are added afterwards, so that results repeat to the bit.
"""

# ruff: noqa: PLR0917  # a kernel's arguments are what it reads and writes
from typing import Any

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from helios_model.kernels.launch import row_launch


@triton.jit(do_not_specialize=["tokens", "rows"])  # type: ignore[untyped-decorator]
def _forward(
    x_ptr: tl.tensor,
    shift_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    out_ptr: tl.tensor,
    mean_ptr: tl.tensor,
    rstd_ptr: tl.tensor,
    tokens: int,
    rows: int,
    eps: float,
    E: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    parts = tl.cdiv(tokens, rows)
    # 64 bits: B * N * E passes 2^31 where several long videos are trained on at once.
    sample = tl.program_id(0).to(tl.int64) // parts
    first = tl.program_id(0) % parts * rows
    column = tl.arange(0, BLOCK)
    inside = column < E
    shift = tl.load(shift_ptr + sample * E + column, mask=inside, other=0.0)
    scale = tl.load(scale_ptr + sample * E + column, mask=inside, other=0.0)
    for token in tl.range(first, tl.minimum(first + rows, tokens), num_stages=2):
        row = sample * tokens + token
        x = tl.load(x_ptr + row * E + column, mask=inside, other=0.0).to(tl.float32)
        mean = tl.sum(x, axis=0) / E
        centred = tl.where(inside, x - mean, 0.0)
        rstd = tl.rsqrt(tl.sum(centred * centred, axis=0) / E + eps)
        out = centred * rstd * (1 + scale) + shift
        tl.store(out_ptr + row * E + column, out.to(out_ptr.dtype.element_ty), mask=inside)
        tl.store(mean_ptr + row, mean)
        tl.store(rstd_ptr + row, rstd)


@triton.jit(do_not_specialize=["tokens", "rows"])  # type: ignore[untyped-decorator]
def _backward(
    grad_ptr: tl.tensor,
    x_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    mean_ptr: tl.tensor,
    rstd_ptr: tl.tensor,
    x_grad_ptr: tl.tensor,
    parts_ptr: tl.tensor,
    tokens: int,
    rows: int,
    E: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    parts = tl.cdiv(tokens, rows)
    program = tl.program_id(0).to(tl.int64)
    sample = program // parts
    first = tl.program_id(0) % parts * rows
    column = tl.arange(0, BLOCK)
    inside = column < E
    scale = tl.load(scale_ptr + sample * E + column, mask=inside, other=0.0)
    shift_grad = tl.zeros([BLOCK], dtype=tl.float32)
    scale_grad = tl.zeros([BLOCK], dtype=tl.float32)
    for token in tl.range(first, tl.minimum(first + rows, tokens), num_stages=2):
        row = sample * tokens + token
        grad = tl.load(grad_ptr + row * E + column, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + row * E + column, mask=inside, other=0.0).to(tl.float32)
        rstd = tl.load(rstd_ptr + row)
        normed = (x - tl.load(mean_ptr + row)) * rstd
        shift_grad += grad
        scale_grad += grad * normed
        grad = grad * (1 + scale)
        along_one = tl.sum(grad, axis=0) / E
        along_normed = tl.sum(grad * normed, axis=0) / E
        x_grad = rstd * (grad - along_one - normed * along_normed)
        tl.store(x_grad_ptr + row * E + column, x_grad.to(x_grad_ptr.dtype.element_ty), mask=inside)
    tl.store(parts_ptr + (2 * program) * E + column, shift_grad, mask=inside)
    tl.store(parts_ptr + (2 * program + 1) * E + column, scale_grad, mask=inside)


def modulated_norm(x_BNE: Tensor, shift_B1E: Tensor, scale_B1E: Tensor, eps: float) -> Tensor:
    """As `reference.modulated_norm`."""
    shape = (x_BNE.shape[0], 1, x_BNE.shape[2])
    out_BNE: Tensor = _norm(x_BNE, shift_B1E.float().expand(shape), scale_B1E.float().expand(shape), eps)[0]
    return out_BNE


@torch.library.custom_op("helios_model::modulated_norm", mutates_args=())
def _norm(x_BNE: Tensor, shift_B1E: Tensor, scale_B1E: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and mean and 1 / standard deviation of each row, which backward needs."""
    batch, tokens, dim = x_BNE.shape
    out_BNE, mean_BN, rstd_BN = _norm_outputs(x_BNE)
    launch = row_launch(batch, tokens, dim, programs=4096)
    with torch.cuda.device_of(x_BNE):  # type: ignore[no-untyped-call]
        _forward[(launch.programs,)](
            x_BNE.contiguous(),
            shift_B1E.contiguous(),
            scale_B1E.contiguous(),
            out_BNE,
            mean_BN,
            rstd_BN,
            tokens,
            launch.rows,
            eps,
            E=dim,
            BLOCK=launch.block,
            num_warps=launch.warps,
        )
    return out_BNE, mean_BN, rstd_BN


@_norm.register_fake
def _norm_outputs(x_BNE: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    mean_BN, rstd_BN = (x_BNE.new_empty(x_BNE.shape[:2], dtype=torch.float32) for _ in range(2))
    return x_BNE.new_empty(x_BNE.shape), mean_BN, rstd_BN


@torch.library.custom_op("helios_model::modulated_norm_backward", mutates_args=())
def _norm_backward(
    grad_BNE: Tensor, x_BNE: Tensor, scale_B1E: Tensor, mean_BN: Tensor, rstd_BN: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    batch, tokens, dim = x_BNE.shape
    launch = row_launch(batch, tokens, dim, programs=512)
    x_grad_BNE = x_BNE.new_empty(x_BNE.shape)
    parts_BP2E = x_BNE.new_empty((batch, launch.programs // batch, 2, dim), dtype=torch.float32)
    with torch.cuda.device_of(x_BNE):  # type: ignore[no-untyped-call]
        _backward[(launch.programs,)](
            grad_BNE.contiguous(),
            x_BNE.contiguous(),
            scale_B1E.contiguous(),
            mean_BN,
            rstd_BN,
            x_grad_BNE,
            parts_BP2E,
            tokens,
            launch.rows,
            E=dim,
            BLOCK=launch.block,
            num_warps=launch.warps,
        )
    return x_grad_BNE, parts_BP2E[:, :, 0].sum(1, keepdim=True), parts_BP2E[:, :, 1].sum(1, keepdim=True)


@_norm_backward.register_fake
def _norm_gradients(_: Tensor, x_BNE: Tensor, scale_B1E: Tensor, *__: object) -> tuple[Tensor, Tensor, Tensor]:
    shift_grad_B1E, scale_grad_B1E = (scale_B1E.new_empty(scale_B1E.shape) for _ in range(2))
    return x_BNE.new_empty(x_BNE.shape), shift_grad_B1E, scale_grad_B1E


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x_BNE, _, scale_B1E, _ = inputs
    _, mean_BN, rstd_BN = output
    ctx.mark_non_differentiable(mean_BN, rstd_BN)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x_BNE, scale_B1E, mean_BN, rstd_BN)


def _gradients(ctx: Any, grad_BNE: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor, None]:
    return *_norm_backward(grad_BNE, *ctx.saved_tensors), None


_norm.register_autograd(_gradients, setup_context=_save)
