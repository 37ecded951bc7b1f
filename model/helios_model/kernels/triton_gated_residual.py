"""Gated residual in Triton; tiles of `[8, 512]`, since nothing here needs a whole row of E.

Backward needs a sum over tokens for the gate: each program adds up some rows of a sample in a fixed order and writes
its part, and the parts are added afterwards, so that results repeat to the bit. The gradient to x is the result's.
"""

# ruff: noqa: PLR0917  # a kernel's arguments are what it reads and writes
from typing import Any

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

TILE_ROWS, TILE_COLUMNS = 8, 512
BACKWARD_ROWS = 64


@triton.jit(do_not_specialize=["tokens"])  # type: ignore[untyped-decorator]
def _forward(
    x_ptr: tl.tensor,
    y_ptr: tl.tensor,
    gate_ptr: tl.tensor,
    out_ptr: tl.tensor,
    tokens: int,
    E: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    # 64 bits: B * N * E passes 2^31 where several long videos are trained on at once.
    strip = tl.program_id(0).to(tl.int64) // tl.cdiv(E, COLUMNS)
    sample = strip // tl.cdiv(tokens, ROWS)
    token = strip % tl.cdiv(tokens, ROWS) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(0) % tl.cdiv(E, COLUMNS) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (token < tokens) & (column < E)
    place = (sample * tokens + token) * E + column
    gate = tl.load(gate_ptr + sample * E + column, mask=column < E, other=0.0)
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + place, (x + y * gate).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["tokens"])  # type: ignore[untyped-decorator]
def _backward(
    grad_ptr: tl.tensor,
    y_ptr: tl.tensor,
    gate_ptr: tl.tensor,
    y_grad_ptr: tl.tensor,
    parts_ptr: tl.tensor,
    tokens: int,
    E: tl.constexpr,
    PART: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    strip = tl.program_id(0).to(tl.int64) // tl.cdiv(E, COLUMNS)
    sample = strip // tl.cdiv(tokens, PART)
    first = strip % tl.cdiv(tokens, PART) * PART
    column = tl.program_id(0) % tl.cdiv(E, COLUMNS) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    gate = tl.load(gate_ptr + sample * E + column, mask=column < E, other=0.0)
    gate_grad = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    for start in range(0, PART, ROWS):
        token = first + start + tl.arange(0, ROWS)[:, None]
        inside = (token < tokens) & (column < E)
        place = (sample * tokens + token) * E + column
        grad = tl.load(grad_ptr + place, mask=inside, other=0.0).to(tl.float32)
        y = tl.load(y_ptr + place, mask=inside, other=0.0).to(tl.float32)
        gate_grad += grad * y
        tl.store(y_grad_ptr + place, (grad * gate).to(y_grad_ptr.dtype.element_ty), mask=inside)
    total = tl.sum(gate_grad, axis=0)[None, :]
    tl.store(parts_ptr + strip * E + column, total, mask=column < E)


def gated_residual(x_BNE: Tensor, y_BNE: Tensor, gate_B1E: Tensor) -> Tensor:
    """As `reference.gated_residual`."""
    gate_B1E = gate_B1E.float().expand(x_BNE.shape[0], 1, x_BNE.shape[2])
    out_BNE: Tensor = _residual(x_BNE, y_BNE, gate_B1E)
    return out_BNE


@torch.library.custom_op("helios_model::gated_residual", mutates_args=())
def _residual(x_BNE: Tensor, y_BNE: Tensor, gate_B1E: Tensor) -> Tensor:
    batch, tokens, dim = x_BNE.shape
    out_BNE: Tensor = _residual_output(x_BNE)
    programs = batch * -(-tokens // TILE_ROWS) * -(-dim // TILE_COLUMNS)
    with torch.cuda.device_of(x_BNE):  # type: ignore[no-untyped-call]
        _forward[(programs,)](
            x_BNE.contiguous(),
            y_BNE.contiguous(),
            gate_B1E.contiguous(),
            out_BNE,
            tokens,
            E=dim,
            ROWS=TILE_ROWS,
            COLUMNS=TILE_COLUMNS,
        )
    return out_BNE


@_residual.register_fake
def _residual_output(x_BNE: Tensor, *_: object) -> Tensor:
    return x_BNE.new_empty(x_BNE.shape)


@torch.library.custom_op("helios_model::gated_residual_backward", mutates_args=())
def _residual_backward(grad_BNE: Tensor, y_BNE: Tensor, gate_B1E: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients to y and gate."""
    batch, tokens, dim = y_BNE.shape
    parts = -(-tokens // BACKWARD_ROWS)
    y_grad_BNE = y_BNE.new_empty(y_BNE.shape)
    parts_BPE = y_BNE.new_empty((batch, parts, dim), dtype=torch.float32)
    with torch.cuda.device_of(y_BNE):  # type: ignore[no-untyped-call]
        _backward[(batch * parts * -(-dim // TILE_COLUMNS),)](
            grad_BNE.contiguous(),
            y_BNE.contiguous(),
            gate_B1E.contiguous(),
            y_grad_BNE,
            parts_BPE,
            tokens,
            E=dim,
            PART=BACKWARD_ROWS,
            ROWS=TILE_ROWS,
            COLUMNS=TILE_COLUMNS,
        )
    return y_grad_BNE, parts_BPE.sum(1, keepdim=True)


@_residual_backward.register_fake
def _residual_gradients(_: Tensor, y_BNE: Tensor, gate_B1E: Tensor) -> tuple[Tensor, Tensor]:
    return y_BNE.new_empty(y_BNE.shape), gate_B1E.new_empty(gate_B1E.shape)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG001  # passed by name
    ctx.save_for_backward(*inputs[1:])


def _gradients(ctx: Any, grad_BNE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return grad_BNE, *_residual_backward(grad_BNE, *ctx.saved_tensors)


_residual.register_autograd(_gradients, setup_context=_save)
