"""Weights shared out over devices for inference (FSDP2): each holds a part and gathers one block ahead of its use."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from helios_model.dit import VideoRefDiT


def shard(
    model: VideoRefDiT,
    mesh: DeviceMesh,
    *,
    offload: bool = False,
    dtype: torch.dtype | None = None,
    prefetch: int = 1,
) -> None:
    """Share the weights out over a mesh of one dimension: a block's while it runs, all others for as long as they run.

    The ranks may be those of `model.ulysses` or others; all of them call the network together, `encode_reference` too.
    A network on the meta device is then filled by `load_shards`. Compile (`compile_blocks`) before.

    Args:
        offload: shards wait in the CPU's memory, pinned where there is CUDA.
        dtype: that weights are gathered and computed with; None: their own.
        prefetch: blocks whose weights are already on their way while one runs.
    """
    policy = CPUOffloadPolicy(pin_memory=torch.cuda.is_available()) if offload else OffloadPolicy()
    # Inputs stay as they come: modulation is fp32 whatever the weights are, and the network casts the rest itself.
    precision = MixedPrecisionPolicy(param_dtype=dtype, cast_forward_inputs=False)
    blocks = list(model.blocks)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=precision, offload_policy=policy)
        register_fsdp_forward_method(block, "forward_reference")
        register_fsdp_forward_method(block, "reference_keys")
    for index, block in enumerate(blocks):
        ahead = blocks[index + 1 : index + 1 + prefetch]
        _sharded(block).set_modules_to_forward_prefetch([_sharded(later) for later in ahead])
    fully_shard(model, mesh=mesh, mp_policy=precision, offload_policy=policy)
    register_fsdp_forward_method(model, "encode_reference")


def load_shards(model: VideoRefDiT, tensors: Iterable[tuple[str, Tensor]], *, offload: bool = False) -> None:
    """Fill a network that `shard` has shared out; of each tensor every rank keeps its part.

    Args:
        tensors: all parameters by name, whole, the same on every rank; one at a time, from `wan_weights.read_wan` say.
        offload: as given to `shard`.

    Raises:
        KeyError: parameters that are missing or unknown, by name.
        RuntimeError: one has another shape.
    """
    _sharded(model).reshard()  # after a pass the root's weights are whole
    own = dict(model.named_parameters())
    parts: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in tensors:
        if name not in own:
            unknown.append(name)
            continue
        like = own[name]
        assert isinstance(like, DTensor)
        part = distribute_tensor(tensor.to(like.dtype), like.device_mesh, like.placements, src_data_rank=None)
        parts[name] = part.cpu() if offload else part
    missing = [name for name in own if name not in parts]
    if missing or unknown:
        raise KeyError(
            f"{len(missing)} parameters are missing, first {missing[:3]}; {len(unknown)} unknown, first {unknown[:3]}"
        )
    model.load_state_dict(parts, assign=True)


def _sharded(module: torch.nn.Module) -> FSDPModule:
    assert isinstance(module, FSDPModule)
    return module
