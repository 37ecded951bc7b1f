"""RMSNorm with rotary embedding in Triton; one row of E, all heads, in the registers of a program at a time.

Backward needs a sum over all tokens for the weight: each program adds up some rows in a fixed order and writes its
part, and the parts are added afterwards, so that results repeat to the bit.
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
    weight_ptr: tl.tensor,
    cos_ptr: tl.tensor,
    sin_ptr: tl.tensor,
    out_ptr: tl.tensor,
    rstd_ptr: tl.tensor,
    tokens: int,
    rows: int,
    eps: float,
    E: tl.constexpr,
    D2: tl.constexpr,
    PER_SAMPLE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    parts = tl.cdiv(tokens, rows)
    # 64 bits: B * N * E passes 2^31 where several long videos are trained on at once.
    sample = tl.program_id(0).to(tl.int64) // parts
    first = tl.program_id(0) % parts * rows
    column = tl.arange(0, BLOCK)
    inside = column < E
    angle = tl.arange(0, BLOCK // 2) % D2
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    for token in range(first, tl.minimum(first + rows, tokens)):
        row = sample * tokens + token
        turn = (row if PER_SAMPLE else token) * D2 + angle
        cos = tl.load(cos_ptr + turn)
        sin = tl.load(sin_ptr + turn)
        x = tl.load(x_ptr + row * E + column, mask=inside, other=0.0).to(tl.float32)
        rstd = tl.rsqrt(tl.sum(x * x, axis=0) / E + eps)
        even, odd = tl.split(tl.reshape(x * rstd * weight, (BLOCK // 2, 2)))
        out = tl.interleave(even * cos - odd * sin, even * sin + odd * cos)
        tl.store(out_ptr + row * E + column, out.to(out_ptr.dtype.element_ty), mask=inside)
        tl.store(rstd_ptr + row, rstd)


@triton.jit(do_not_specialize=["tokens", "rows"])  # type: ignore[untyped-decorator]
def _backward(
    grad_ptr: tl.tensor,
    x_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    cos_ptr: tl.tensor,
    sin_ptr: tl.tensor,
    rstd_ptr: tl.tensor,
    x_grad_ptr: tl.tensor,
    parts_ptr: tl.tensor,
    tokens: int,
    rows: int,
    E: tl.constexpr,
    D2: tl.constexpr,
    PER_SAMPLE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    parts = tl.cdiv(tokens, rows)
    program = tl.program_id(0).to(tl.int64)
    sample = program // parts
    first = tl.program_id(0) % parts * rows
    column = tl.arange(0, BLOCK)
    inside = column < E
    angle = tl.arange(0, BLOCK // 2) % D2
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    weight_grad = tl.zeros([BLOCK], dtype=tl.float32)
    last = tl.minimum(first + rows, tokens)
    # The next row is on its way while one is worked on. Triton's own pipelining would do that through shared memory
    # and would copy the angles there once a head.
    next_grad = tl.load(grad_ptr + (sample * tokens + first) * E + column, mask=inside, other=0.0)
    next_x = tl.load(x_ptr + (sample * tokens + first) * E + column, mask=inside, other=0.0)
    for token in range(first, last):
        row = sample * tokens + token
        grad = next_grad.to(tl.float32)
        x = next_x.to(tl.float32)
        more = column < tl.where(token + 1 < last, E, 0)
        next_grad = tl.load(grad_ptr + (row + 1) * E + column, mask=more, other=0.0)
        next_x = tl.load(x_ptr + (row + 1) * E + column, mask=more, other=0.0)
        turn = (row if PER_SAMPLE else token) * D2 + angle
        cos = tl.load(cos_ptr + turn)
        sin = tl.load(sin_ptr + turn)
        rstd = tl.load(rstd_ptr + row)
        even, odd = tl.split(tl.reshape(grad, (BLOCK // 2, 2)))
        grad = tl.interleave(even * cos + odd * sin, odd * cos - even * sin)
        normed = x * rstd
        weight_grad += grad * normed
        grad = grad * weight
        along_normed = tl.sum(grad * normed, axis=0) / E
        x_grad = rstd * (grad - normed * along_normed)
        tl.store(x_grad_ptr + row * E + column, x_grad.to(x_grad_ptr.dtype.element_ty), mask=inside)
    tl.store(parts_ptr + program * E + column, weight_grad, mask=inside)


def norm_rope(x_BNE: Tensor, weight_E: Tensor, cos_BND2: Tensor, sin_BND2: Tensor, heads: int, eps: float) -> Tensor:
    """As `reference.norm_rope`; no gradient flows to the angles."""
    out_BNE: Tensor = _norm(x_BNE, weight_E, cos_BND2, sin_BND2, eps)[0]
    return out_BNE.view(*x_BNE.shape[:2], heads, -1)


@torch.library.custom_op("helios_model::norm_rope", mutates_args=())
def _norm(x_BNE: Tensor, weight_E: Tensor, cos_BND2: Tensor, sin_BND2: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The result and 1 / root mean square of each row, which backward needs."""
    batch, tokens, dim = x_BNE.shape
    out_BNE, rstd_BN = _norm_outputs(x_BNE)
    launch = row_launch(batch, tokens, dim, programs=4096)
    with torch.cuda.device_of(x_BNE):  # type: ignore[no-untyped-call]
        _forward[(launch.programs,)](
            x_BNE.contiguous(),
            weight_E.contiguous(),
            cos_BND2.contiguous(),
            sin_BND2.contiguous(),
            out_BNE,
            rstd_BN,
            tokens,
            launch.rows,
            eps,
            E=dim,
            D2=cos_BND2.shape[-1],
            PER_SAMPLE=cos_BND2.shape[0] > 1,
            BLOCK=launch.block,
            num_warps=launch.warps,
        )
    return out_BNE, rstd_BN


@_norm.register_fake
def _norm_outputs(x_BNE: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return x_BNE.new_empty(x_BNE.shape), x_BNE.new_empty(x_BNE.shape[:2], dtype=torch.float32)


@torch.library.custom_op("helios_model::norm_rope_backward", mutates_args=())
def _norm_backward(
    grad_BNE: Tensor, x_BNE: Tensor, weight_E: Tensor, cos_BND2: Tensor, sin_BND2: Tensor, rstd_BN: Tensor
) -> tuple[Tensor, Tensor]:
    batch, tokens, dim = x_BNE.shape
    launch = row_launch(batch, tokens, dim, programs=512)
    x_grad_BNE = x_BNE.new_empty(x_BNE.shape)
    parts_PE = x_BNE.new_empty((launch.programs, dim), dtype=torch.float32)
    with torch.cuda.device_of(x_BNE):  # type: ignore[no-untyped-call]
        _backward[(launch.programs,)](
            grad_BNE.contiguous(),
            x_BNE.contiguous(),
            weight_E.contiguous(),
            cos_BND2.contiguous(),
            sin_BND2.contiguous(),
            rstd_BN,
            x_grad_BNE,
            parts_PE,
            tokens,
            launch.rows,
            E=dim,
            D2=cos_BND2.shape[-1],
            PER_SAMPLE=cos_BND2.shape[0] > 1,
            BLOCK=launch.block,
            num_warps=launch.warps,
        )
    return x_grad_BNE, parts_PE.sum(0).to(weight_E.dtype)


@_norm_backward.register_fake
def _norm_gradients(_: Tensor, x_BNE: Tensor, weight_E: Tensor, *__: object) -> tuple[Tensor, Tensor]:
    return x_BNE.new_empty(x_BNE.shape), weight_E.new_empty(weight_E.shape)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
    rstd_BN = output[1]
    ctx.mark_non_differentiable(rstd_BN)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:4], rstd_BN)


def _gradients(ctx: Any, grad_BNE: Tensor, _: object) -> tuple[Tensor, Tensor, None, None, None]:
    return *_norm_backward(grad_BNE, *ctx.saved_tensors), None, None, None


_norm.register_autograd(_gradients, setup_context=_save)
