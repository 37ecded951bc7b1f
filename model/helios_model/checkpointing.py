"""Activation checkpointing of blocks: what the backward pass computes again instead of having kept it."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

T = TypeVar("T")
Checkpointing = Literal["none", "selective", "full"]
"""`full` keeps a block's input alone; `selective` keeps the outputs of attention and of matrix products as well, so
that only norms, activations and elementwise work are done twice."""

_KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,  # noqa: SLF001  # operators have such names
    torch.ops.aten._scaled_dot_product_efficient_attention.default,  # noqa: SLF001
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,  # noqa: SLF001
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,  # noqa: SLF001
}


def run_block(policy: Checkpointing, block: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """`block(*args, **kwargs)`; what its backward pass needs is kept or computed again as `policy` says.

    Called within what is compiled: torch.compile knows checkpoints inside a graph, and refuses to run inside of one.
    """
    if policy == "none" or not torch.is_grad_enabled():
        return block(*args, **kwargs)
    if policy == "full":
        whole: T = checkpoint(block, *args, use_reentrant=False, **kwargs)
        return whole
    contexts = partial(create_selective_checkpoint_contexts, _keep)
    result: T = checkpoint(block, *args, use_reentrant=False, context_fn=contexts, **kwargs)
    return result


def _keep(ctx: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:  # noqa: ARG001  # torch's shape
    return CheckpointPolicy.MUST_SAVE if operator in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
