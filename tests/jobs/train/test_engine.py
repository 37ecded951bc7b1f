"""DeepSpeed as the loop uses it: what it is told, that it resumes exactly, and that it equals plain PyTorch."""

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from helios.errors import InputError
from helios_jobs.curriculum import stage
from helios_jobs.curriculum.config import StageConfig
from helios_jobs.curriculum.objective import StageContext
from helios_jobs.train.engine import Engine, engine_config, make_optimizer
from helios_jobs.train.loop import seed_step

Weights = dict[str, Tensor]


def _distance(one: Weights, other: Weights) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_the_known_traps_of_muon_are_avoided(zero: int) -> None:
    """No clipping after Muon, no reduce-scatter under ZeRO 3, no build at run time."""
    told = engine_config(StageConfig.model_validate({"stage": "t2v", "steps": 1, "zero": zero}))
    assert told["gradient_clipping"] == 0.0
    assert told["zero_optimization"]["reduce_scatter"] is False
    assert "optimizer" not in told


@pytest.mark.parametrize("zero", [0, 2, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_engine_ends_with_the_same_bits(plain_runs: dict[str, Any], optimizer: str, zero: int) -> None:
    """Saved half way and loaded into a fresh engine, training ends where an unbroken run ends."""
    run = plain_runs[f"{optimizer}-{zero}-8"]
    assert _distance(run["whole"], run["resumed"]) == 0.0


def test_muon_iterates_in_what_the_processor_is_fast_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU without bf16 instructions takes fp32: emulated, its products take many times as long."""
    from deepspeed.runtime.zero.muon import original_muon

    monkeypatch.setattr(original_muon, "ns_compute_dtype", lambda _method: torch.bfloat16)
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(stage, "has_native_bf16", lambda native=native: native)
        group = {"params": [torch.nn.Parameter(torch.ones(2, 2))], "lr": 0.1, "use_muon": True, "weight_decay": 0.0}
        make_optimizer([group], "muon")
        assert original_muon.ns_compute_dtype("standard") == expected


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_shards_of_another_number_of_workers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zero: int
) -> None:
    """One worker cannot go on from two workers' shards, and is told what to change; without shards it can."""
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)
    (tmp_path / "engine").mkdir()
    for rank in range(2 if zero else 0):
        (tmp_path / "engine" / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()
    loaded = SimpleNamespace(load_checkpoint=lambda *_, **__: ("path", {"step": 7}))
    engine = Engine(loaded, StageConfig.model_validate({"stage": "t2v", "steps": 9, "zero": zero}), [])
    if zero == 0:
        assert engine.load(str(tmp_path)) == 7
        return
    with pytest.raises(InputError, match=f"written by 2 workers, and this start has 1: with zero: {zero}"):
        engine.load(str(tmp_path))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_sharding_does_not_change_the_weights(plain_runs: dict[str, Any], optimizer: str) -> None:
    """ZeRO 0, 2 and 3 export the same weights."""
    plain, two, three = (plain_runs[f"{optimizer}-{zero}-8"]["whole"] for zero in (0, 2, 3))
    assert _distance(plain, two) < 1e-5
    assert _distance(plain, three) < 1e-5


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_ranks_equal_one_process_of_plain_pytorch(
    plain_runs: dict[str, Any], toy: ModuleType, optimizer: str
) -> None:
    """Data parallelism, clipping, schedule and both optimizers match torch.optim on the two ranks' mean loss."""
    settings = {"stage": "t2v", "steps": 8, "batch": 192, "warmup": 2, "zero": 2, "optimizer": optimizer}
    config = StageConfig.model_validate(settings)
    assert _distance(_plain_pytorch(toy, config), plain_runs[f"{optimizer}-2-8"]["whole"]) < (
        2e-3 if optimizer == "muon" else 1e-5
    )


def _plain_pytorch(toy: ModuleType, config: StageConfig) -> Weights:
    ranks = [toy.ToyObjective(config) for _ in range(2)]
    nets = [
        objective.setup(StageContext(parent=None, cache=None, seed=0, rank=rank, world_size=2))  # type: ignore[arg-type]  # unused
        for rank, objective in enumerate(ranks)
    ]
    net = nets[0]
    groups = ranks[0].parameter_groups(net, config.lr)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(group["params"], lr=group["lr"], weight_decay=0.0)
        if group["use_muon"]
        else torch.optim.AdamW(group["params"], lr=group["lr"], betas=(0.9, 0.95), weight_decay=0.0)
        for group in groups
    ]
    base = [group["lr"] for group in groups]
    clipped = [parameter for group in groups if not group["use_muon"] for parameter in group["params"]]
    for step in range(config.steps):
        for rank, objective in enumerate(ranks):
            seed_step(config.seed, step, rank)
            (objective.loss(net, objective.batch(step), step).loss / 2).backward()
        torch.nn.utils.clip_grad_norm_(clipped, config.grad_clip)
        for optimizer, lr in zip(optimizers, base, strict=True):
            optimizer.param_groups[0]["lr"] = lr * config.lr_scale(step)
            optimizer.step()
            optimizer.zero_grad()
    return {name: value.detach() for name, value in net.state_dict().items()}
