"""torch.compile by block: all layers of a network share what was compiled for one."""

from types import MethodType
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from helios_model.blocks import Block
from helios_model.dit import VideoRefDiT

_METHODS = ("forward", "forward_reference", "reference_keys")


def compile_blocks(model: VideoRefDiT, **options: Any) -> None:
    """Compile the blocks at their first use, in one graph each; before `sharding.shard`.

    Each set of inputs (text, sound, references, windows) is a graph of its own. A second length of a stream makes one
    more, in which lengths are numbers that may change, and further lengths use that. Graphs apart are those for 1 of
    something, for each number of windows, and for references of which a first or last frame has no token left. The
    weights' names stay; a copy of the network is compiled as well.

    Args:
        options: for `torch.compile`, such as `mode` or `backend`.

    Raises:
        ValueError: the network is sharded already.
    """
    if any(isinstance(module, FSDPModule) for module in model.modules()):
        raise ValueError("compile_blocks comes before sharding: what gathers weights must stay around what is compiled")
    # More graphs than torch's 8 are right here, and other networks in the process do not count.
    settings = {"fullgraph": True, "recompile_limit": 64, "isolate_recompiles": True} | options
    for name in _METHODS:
        compiled = torch.compile(getattr(Block, name), **settings)
        for block in model.blocks:
            # Bound to its block, and not closed over it: a deep copy is then bound to the copy.
            setattr(block, name, MethodType(compiled, block))
