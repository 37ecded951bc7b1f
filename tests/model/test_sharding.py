"""Weights shared out by FSDP over 2 and 4 ranks, against one process: all in one run of `ranks.py`."""

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from helios_model.compiling import compile_blocks
from helios_model.config import ModelConfig, SpeechFeatures, TextFeatures
from helios_model.dit import VideoRefDiT
from helios_model.sharding import load_shards, shard
from helios_model.ulysses import Ulysses
from helios_model.wan_weights import read_wan, save_wan

SMALL = ModelConfig(
    preset="small",
    channels=4,
    patch=2,
    dim=24,
    layers=3,
    heads=2,
    ffn=40,
    text=TextFeatures(dim=12, tokens=5),
    audio=SpeechFeatures(dim=10, tokens=3),
)
SHARDED: dict[str, dict[str, Any]] = {"plain": {}, "offloaded": {"offload": True}, "far ahead": {"prefetch": 9}}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole(dtype: torch.dtype = torch.float32) -> VideoRefDiT:
    """No parameter is zero: zeros hide mistakes."""
    model = VideoRefDiT(SMALL).requires_grad_(requires_grad=False)
    for index, parameter in enumerate(model.parameters()):
        parameter.copy_(0.2 * draw(*parameter.shape, seed=index))
    return model.to(dtype)


@torch.inference_mode()
def outputs(model: VideoRefDiT) -> dict[str, Tensor]:
    """The network in the order in which it serves: references first, from them a velocity, then both at once."""
    latents, sound = draw(2, 4, 2, 4, 6, seed=5), draw(2, 2, 3, 10, seed=6)
    cache = model.encode_reference(latents, audio_BTLK=sound)
    given = {"audio_BTLK": draw(2, 3, 3, 10, seed=2), "anchor_BCHW": draw(2, 4, 4, 6, seed=4)}
    plain = (draw(2, 4, 3, 4, 6), torch.tensor([0.3, 0.9]), draw(2, 5, 12, seed=1))
    from_cache = model(*plain, **given, reference=cache)
    at_once = model(*plain, **given, reference_BCTHW=latents, reference_audio_BTLK=sound)
    return {"cached": from_cache.velocity_BCTHW, "at once": at_once.velocity_BCTHW}


def on_a_rank() -> dict[str, Any]:
    if not dist.is_initialized():
        return {name: outputs(whole()) for name in SHARDED} | {"bf16": outputs(whole(torch.bfloat16))}
    if dist.get_world_size() == 4:
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("weights", "sequence"))
        return {"plain": _apart(mesh["weights"], Ulysses(SMALL.heads, mesh["sequence"].get_group()))}
    mesh = init_device_mesh("cpu", (2,))
    found: dict[str, Any] = {name: _sharded(mesh, **options) for name, options in SHARDED.items()}
    found["bf16"] = _sharded(mesh, dtype=torch.bfloat16)
    found["same group"] = _apart(mesh, Ulysses(SMALL.heads))
    found["same group, compiled"] = _apart(mesh, Ulysses(SMALL.heads), compiled=True)
    found["loaded"] = _loaded(mesh)
    return found


def _sharded(mesh: DeviceMesh, **options: Any) -> dict[str, Any]:
    model = whole()
    shard(model, mesh, **options)
    return outputs(model) | {"sizes": _sizes(model)}


def _apart(mesh: DeviceMesh, ulysses: Ulysses, *, compiled: bool = False) -> dict[str, Tensor]:
    model = whole()
    model.ulysses = ulysses
    if compiled:
        compile_blocks(model, backend="eager")
    shard(model, mesh)
    return outputs(model)


def _loaded(mesh: DeviceMesh) -> dict[str, Any]:
    with torch.device("meta"):
        model = VideoRefDiT(SMALL).requires_grad_(requires_grad=False)
    shard(model, mesh, offload=True)
    weights = whole().state_dict()
    load_shards(model, [(name, torch.zeros_like(part)) for name, part in weights.items()], offload=True)
    assert not outputs(model)["cached"].any()
    with tempfile.TemporaryDirectory() as folder:
        save_wan(whole(), Path(folder, "wan"), max_shard_bytes=10_000)
        config, tensors = read_wan(Path(folder, "wan"))
        load_shards(model, tensors, offload=True)
    assert replace(config, preset=SMALL.preset) == SMALL
    found = outputs(model) | {"sizes": _sizes(model)}
    with pytest.raises(ValueError, match="comes before sharding"):
        compile_blocks(model)
    with pytest.raises(KeyError, match=r"first \['stream_embedding', .*1 unknown, first \['tail'\]"):
        load_shards(model, [("tail", torch.zeros(16))])
    return found


def _sizes(model: VideoRefDiT) -> dict[str, int]:
    """Numbers that this rank holds of the blocks' parameters, which are back in shards after a pass."""
    held = {name: part for name, part in model.named_parameters() if name.startswith("blocks.")}
    assert all(isinstance(part, DTensor) for part in held.values())
    return {name: part.to_local().numel() for name, part in held.items() if isinstance(part, DTensor)}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What each rank found, by degree; degree 0 is one process."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, Path(__file__).with_name("ranks.py"), __file__, on_a_rank.__name__, folder, 0, 2, 4]
    subprocess.run([*map(str, command)], check=True, timeout=200)
    return {
        degree: [torch.load(folder / f"{degree}-{rank}.pt") for rank in range(max(degree, 1))] for degree in (0, 2, 4)
    }


Ran = dict[int, list[dict[str, Any]]]


@pytest.mark.parametrize("kind", [*SHARDED, "bf16", "loaded"])
def test_shards_compute_what_the_whole_does(ran: Ran, kind: str) -> None:
    """Velocities from cached and from fresh references, with shards in any place, loaded in parts, or cast to bf16."""
    alone = ran[0][0]["plain" if kind == "loaded" else kind]
    for rank in ran[2]:
        for name, velocity in alone.items():
            assert velocity.std() > 0.1
            assert torch.equal(rank[kind][name], velocity)


@pytest.mark.parametrize(("degree", "kind"), [(2, "same group"), (2, "same group, compiled"), (4, "plain")])
def test_shards_work_beside_a_shared_sequence(ran: Ran, degree: int, kind: str) -> None:
    """Weights are shared by the ranks that share the sequence, or by others; with compiled blocks, too."""
    for rank in ran[degree]:
        for name, velocity in ran[0][0]["plain"].items():
            assert (rank[kind][name] - velocity).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", [*SHARDED, "loaded"])
def test_a_rank_holds_its_half(ran: Ran, kind: str) -> None:
    """After a pass every parameter of the blocks is in two parts that make the whole."""
    sizes = {name: part.numel() for name, part in whole().named_parameters() if name.startswith("blocks.")}
    first, second = (rank[kind]["sizes"] for rank in ran[2])
    assert {name: first[name] + second[name] for name in sizes} == sizes
    assert 0.49 < sum(first.values()) / sum(sizes.values()) < 0.51
