"""DeepSpeed for one stage: configuration, start, clipping, learning rate, and the weights back out of it."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from helios.errors import InputError
from helios_jobs.curriculum.config import StageConfig
from helios_jobs.curriculum.stage import matmul_dtype

BUCKET_ELEMENTS = 50_000_000
"""Elements of a reduce or gather bucket. The tiny model fits into one, so a step costs one collective each way."""


def quiet_process(device: torch.device) -> None:
    """Settings of a worker process; they must be made before DeepSpeed is imported.

    Muon's module would compile its kernels with the system's C++ compiler, which takes tens of seconds. One thread a
    worker: two processes of two threads stall each other.
    """
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)


def engine_config(config: StageConfig) -> dict[str, Any]:
    """DeepSpeed's configuration of a stage; pure, so that every trap it avoids can be asserted.

    Weights and reductions stay fp32; bf16 is the model's own autocast of its matrix products (Muon's resume fails with
    bf16 weights in DeepSpeed 0.19.8). Clipping is ours (`clip_gradients`): DeepSpeed would clip Muon's update.
    """
    return {
        "train_micro_batch_size_per_gpu": config.batch,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": config.zero,
            "overlap_comm": False,
            "contiguous_gradients": False,
            "reduce_scatter": False,
            "reduce_bucket_size": BUCKET_ELEMENTS,
            "allgather_bucket_size": BUCKET_ELEMENTS,
            "stage3_prefetch_bucket_size": BUCKET_ELEMENTS,
            "stage3_param_persistence_threshold": 10_000,
        },
    }


def make_optimizer(groups: list[dict[str, Any]], name: str) -> torch.optim.Optimizer:
    """Muon for groups with `use_muon` and AdamW for the rest, or AdamW for all.

    The optimizer is built here and handed to DeepSpeed: where DeepSpeed builds Muon itself it tags parameters by name
    and overrules the objective's choice.
    """
    if name == "adamw":
        plain = [{key: value for key, value in group.items() if key != "use_muon"} for group in groups]
        return torch.optim.AdamW(plain, betas=(0.9, 0.95), eps=1e-8)
    from deepspeed.runtime.zero.muon import original_muon
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    if matmul_dtype("auto", groups[0]["params"][0].device) == torch.float32:
        # DeepSpeed iterates in bf16 wherever torch can, and a CPU without instructions for it takes many times as long.
        original_muon.ns_compute_dtype = lambda _method: torch.float32

    for group in groups:
        own = {"momentum": 0.95, "ns_method": "standard"} if group["use_muon"] else {"betas": (0.9, 0.95), "eps": 1e-8}
        group.update(own)
        for parameter in group["params"]:
            parameter.use_muon = group["use_muon"]
    optimizer: torch.optim.Optimizer = MuonWithAuxAdam(
        groups, adam_optimizer=torch.optim.AdamW, adam_optimizer_kwargs={"foreach": None}
    )
    return optimizer


@dataclass(slots=True)
class Engine:
    """A DeepSpeed engine and the two things it does not do for us: clipping that Muon survives, and the schedule.

    Attributes:
        wrapped: the DeepSpeed engine; call it as the module.
        base_lrs: learning rate of each parameter group before the schedule.
    """

    wrapped: Any
    config: StageConfig
    base_lrs: list[float]

    def backward(self, loss: Tensor) -> None:
        self.wrapped.backward(loss)

    def step(self, step: int) -> float:
        """Clip, update the weights with the learning rate of `step`; returns the gradient norm before clipping."""
        norm = clip_gradients(self.wrapped, self.config.grad_clip)
        scale = self.config.lr_scale(step)
        for group, base in zip(self._groups(), self.base_lrs, strict=True):
            group["lr"] = base * scale
        self.wrapped.step()
        return norm

    def save(self, folder: str, step: int) -> None:
        """Write every rank's shard under `folder`. All ranks call it; it ends with a barrier."""
        self.wrapped.save_checkpoint(folder, tag="engine", client_state={"step": step}, save_latest=False)

    def load(self, folder: str) -> int:
        """Restore weights and optimizer state; returns the number of steps done.

        Raises:
            InputError: ZeRO's shards of the optimizer were written by another number of workers.
        """
        written, here = len(list(Path(folder, "engine").glob("*optim_states.pt"))), dist.get_world_size()
        if self.config.zero > 0 and written != here:
            raise InputError(
                f"the checkpoint was written by {written} workers, and this start has {here}: with zero: "
                f"{self.config.zero} their number cannot change",
                hint="set spec.workers to one number, or spec.config.zero to 0",
            )
        _, state = self.wrapped.load_checkpoint(folder, tag="engine")
        return int(state["step"])

    def weights(self) -> dict[str, Tensor]:
        """The full fp32 state dict on rank 0 (empty on the others). All ranks call it."""
        if self.config.zero == 3:
            return _gathered_weights(self.wrapped.module)
        if self.wrapped.global_rank != 0:
            return {}
        return {name: value.detach().cpu().float() for name, value in self.wrapped.module.state_dict().items()}

    def _groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = self.wrapped.basic_optimizer.param_groups
        return groups


def start_engine(module: nn.Module, groups: list[dict[str, Any]], config: StageConfig) -> Engine:
    """Wrap `module` for the process group that is already there."""
    import deepspeed

    # Its shared-memory all-reduce serves inference alone, and would be compiled on first use.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    base_lrs = [float(group["lr"]) for group in groups if group["params"]]
    wrapped, *_ = deepspeed.initialize(
        model=module,
        optimizer=make_optimizer([group for group in groups if group["params"]], config.optimizer),
        config=engine_config(config),
        dist_init_required=False,
    )
    return Engine(wrapped=wrapped, config=config, base_lrs=base_lrs)


def clip_gradients(engine: Any, limit: float) -> float:
    """Scale what AdamW updates to a global gradient norm of at most `limit`, in place; 0 only measures.

    Runs between backward and step. Muon's groups are left alone: their update has a fixed norm whatever the gradient's,
    and at ZeRO 1 and 2 their gradient already is the update. Returns the norm before clipping.
    """
    gradients = [gradient for gradient in _adam_gradients(engine) if gradient.numel()]
    device = gradients[0].device if gradients else torch.device("cpu")
    squares = torch.zeros((), dtype=torch.float32, device=device)
    if gradients:
        squares = torch.stack(torch._foreach_norm(gradients)).square().sum()  # noqa: SLF001 - torch's own clip uses it
    if engine.zero_optimization_stage() > 0 and dist.get_world_size() > 1:
        dist.all_reduce(squares)
    norm = math.sqrt(squares.item())
    if limit > 0 and norm > limit and gradients:
        torch._foreach_mul_(gradients, limit / (norm + 1e-6))
    return norm


def _adam_gradients(engine: Any) -> Iterator[Tensor]:
    groups: list[Mapping[str, Any]] = engine.basic_optimizer.param_groups
    stage = engine.zero_optimization_stage()
    if stage == 0:
        for group in groups:
            if not group.get("use_muon", False):
                yield from (parameter.grad for parameter in group["params"] if parameter.grad is not None)
        return
    optimizer = engine.optimizer
    for index, partition in optimizer.averaged_gradients.items():
        owner = optimizer.sub_group_to_group_id[index] if stage == 3 else index
        if not groups[owner].get("use_muon", False):
            yield from partition or ()


def _gathered_weights(module: nn.Module) -> dict[str, Tensor]:
    """ZeRO 3: collect one module at a time, so that no rank but 0 ever holds more than one layer."""
    import deepspeed

    lead = dist.get_rank() == 0
    found: dict[str, Tensor] = {}
    for prefix, child in module.named_modules():
        own = list(child.parameters(recurse=False))
        with deepspeed.zero.GatheredParameters(own, enabled=bool(own)):
            if lead:
                # The copy matters: a gathered parameter's storage is given back when the context ends.
                mine = child.state_dict(prefix=f"{prefix}." if prefix else "")
                names = {f"{prefix}.{name}".lstrip(".") for name, _ in child.named_parameters(recurse=False)}
                names |= {f"{prefix}.{name}".lstrip(".") for name, _ in child.named_buffers(recurse=False)}
                found |= {name: mine[name].clone().cpu().float() for name in names & mine.keys()}
    return found
