"""The network on 1, 2 and 4 ranks that share a sequence, against one process: all in one run of `ranks.py`."""

import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from helios_model.config import ModelConfig, MotionConfig, SpeechFeatures, TextFeatures
from helios_model.dit import VideoRefDiT
from helios_model.sampler import euler_step, keyed_noise, schedule
from helios_model.ulysses import Ulysses

DEGREES = (1, 2, 4)
TOLERANCE = 1e-5
SMALL = ModelConfig(
    preset="small",
    channels=4,
    patch=2,
    dim=48,
    layers=3,
    heads=4,
    ffn=40,
    text=TextFeatures(dim=12, tokens=5),
    audio=SpeechFeatures(dim=10, tokens=3),
    motion=MotionConfig(dim=6),
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lively(config: ModelConfig) -> VideoRefDiT:
    """No parameter is zero: zeros hide mistakes."""
    model = VideoRefDiT(config)
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            start = torch.ones(()) if parameter.ndim == 1 else torch.zeros(())
            parameter.copy_(start + 0.15 * draw(*parameter.shape, seed=index))
    return model


def given(frames: int = 3, height: int = 4, width: int = 6) -> dict[str, Tensor]:
    z_BCTHW = draw(2, 4, frames, height, width)
    return {"z_BCTHW": z_BCTHW, "sigma_B": torch.tensor([0.3, 0.9]), "text": draw(2, 5, 12, seed=1)}


PLAIN = given()
"""18 tokens: two ranks share them evenly, four do not."""
SOUND = {"audio_BTLK": draw(2, 3, 3, 10, seed=2), "audio_keep_B": torch.tensor([1.0, 0.0])}
BESIDE = {
    "prefix_BCTHW": draw(2, 4, 2, 4, 6, seed=3),
    "anchor_BCHW": draw(2, 4, 4, 6, seed=4),
    "anchor_keep_BK": torch.tensor([[0, 2, 3, 5], [1, 2, 3, 4]]),
}
REFERENCE = {"reference_BCTHW": draw(2, 4, 2, 4, 6, seed=5), "reference_audio_BTLK": draw(2, 2, 3, 10, seed=6)}
MOTION = {"motion_BTM": draw(2, 3, 6, seed=7), "motion_sigma_B": torch.tensor([0.0, 0.5])}
EVERYTHING = {
    **PLAIN,
    **BESIDE,
    **REFERENCE,
    **MOTION,
    "audio_BTLK": draw(2, 5, 3, 10, seed=2),
    "reference_keep_BK": torch.tensor([[0, 2, 3, 8, 11], [1, 2, 6, 7, 9]]),
}
MODES: dict[str, dict[str, Tensor]] = {
    "plain": PLAIN,
    "sound": PLAIN | SOUND,
    "prefix and anchor": PLAIN | BESIDE,
    "motion": PLAIN | MOTION,
    "references": PLAIN | REFERENCE,
    "everything": EVERYTHING,
    "windows": EVERYTHING,
    # Fewer tokens than ranks: one of z, three of the reference's four.
    "one token": given(1, 2, 2)
    | {"audio_BTLK": draw(2, 1, 3, 10), "anchor_BCHW": draw(2, 4, 2, 2)}
    | {"reference_BCTHW": draw(2, 4, 4, 2, 2), "reference_audio_BTLK": draw(2, 4, 3, 10)}
    | {"reference_keep_BK": torch.tensor([[0, 1, 3], [0, 2, 3]])},
}


def on_a_rank() -> dict[str, Any]:
    """Outputs and gradients of all modes and a generation; gradients are summed over the ranks."""
    found: dict[str, Any] = {mode: _outputs_and_gradients(mode) for mode in MODES}
    found["generation"] = _generated()
    found["cache"] = _cached()
    if dist.is_initialized() and dist.get_world_size() > 1:
        with pytest.raises(
            ValueError, match=r"3 heads cannot be shared by . ranks; degrees that divide them: \[1, 3\]"
        ):
            Ulysses(3)
    return found


def _outputs_and_gradients(mode: str) -> dict[str, Any]:
    model = lively(replace(SMALL, window=1 if mode == "windows" else None))
    model.ulysses = Ulysses(SMALL.heads) if dist.is_initialized() else None
    prediction = model(**MODES[mode])
    loss = (prediction.velocity_BCTHW * draw(*prediction.velocity_BCTHW.shape, seed=8)).mean()
    if prediction.motion_BTM is not None:
        loss = loss + (prediction.motion_BTM * draw(*prediction.motion_BTM.shape, seed=9)).mean()
    loss.backward()
    gradients = {name: part.grad for name, part in model.named_parameters() if part.grad is not None}
    together = torch.cat([gradient.flatten() for gradient in gradients.values()])
    if dist.is_initialized():
        dist.all_reduce(together)
    parts = torch.split(together, [gradient.numel() for gradient in gradients.values()])
    return {
        "velocity": prediction.velocity_BCTHW.detach(),
        "motion": None if prediction.motion_BTM is None else prediction.motion_BTM.detach(),
        "gradients": dict(zip(gradients, parts, strict=True)),
    }


@torch.no_grad()
def _cached() -> dict[str, Any]:
    """What keys and values of references hold on to, and a copy of them."""
    model = lively(SMALL)
    model.ulysses = Ulysses(SMALL.heads) if dist.is_initialized() else None
    cache = model.encode_reference(REFERENCE["reference_BCTHW"], audio_BTLK=REFERENCE["reference_audio_BTLK"])
    parts = [part for pair in cache.layers for part in pair]
    stored = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in parts}
    types = {type(part).__name__ for part in parts}
    return {"nbytes": cache.nbytes, "stored": sum(stored.values()), "types": types, "copy": deepcopy(cache).nbytes}


@torch.inference_mode()
def _generated() -> Tensor:
    """Latents and motion of two chunks, 24 stochastic steps of three guided passes each, from a cached reference."""
    model = lively(SMALL)
    model.ulysses = Ulysses(SMALL.heads) if dist.is_initialized() else None
    cache = model.encode_reference(draw(1, 4, 2, 4, 6, seed=5), audio_BTLK=draw(1, 2, 3, 10, seed=6)).expand(3)
    constant = {
        "text": torch.cat([torch.zeros(1, 5, 12), draw(1, 5, 12, seed=1).expand(2, -1, -1)]),
        "audio_keep_B": torch.tensor([0.0, 0.0, 1.0]),
        "reference": cache,
    }
    first = _chunk(model, 0, constant | {"audio_BTLK": draw(1, 3, 3, 10, seed=2).expand(3, -1, -1, -1)})
    before_BCTHW = first[0].expand(3, -1, -1, -1, -1)
    beside = {"prefix_BCTHW": before_BCTHW[:, :, -2:], "anchor_BCHW": before_BCTHW[:, :, 0]}
    second = _chunk(model, 1, constant | beside | {"audio_BTLK": draw(1, 5, 3, 10, seed=3).expand(3, -1, -1, -1)})
    return torch.cat([part.flatten() for part in first + second])


def _chunk(model: VideoRefDiT, chunk: int, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    x = [keyed_noise(shape, seed=chunk, chunk=chunk, step=0) for shape in ((1, 4, 3, 4, 6), (1, 3, 6))]
    for step, (sigma, target) in enumerate(pairwise(schedule(24, 2.0)), start=1):
        z, motion = (part.repeat(3, *[1] * (part.ndim - 1)) for part in x)
        for index, v in enumerate(model(z, torch.full((3,), sigma), motion_BTM=motion, **given)):
            v_none, v_text, v_all = v.chunk(3)
            guided = v_none + 2.0 * (v_text - v_none) + 1.5 * (v_all - v_text)
            noise = keyed_noise(x[index].shape, seed=index, chunk=chunk, step=step)
            x[index] = euler_step(x[index], guided, sigma, target, eta=0.5, noise=noise if target else None)
    return x[0], x[1]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What each rank found, by degree; degree 0 is one process."""
    folder = tmp_path_factory.mktemp("ranks")
    degrees = (0, *DEGREES)
    command = [sys.executable, Path(__file__).with_name("ranks.py"), __file__, on_a_rank.__name__, folder]
    subprocess.run([*map(str, command), *map(str, degrees)], check=True, timeout=200)
    return {
        degree: [torch.load(folder / f"{degree}-{rank}.pt") for rank in range(max(degree, 1))] for degree in degrees
    }


Ran = dict[int, list[dict[str, Any]]]


def _pairs(ran: Ran, degree: int, mode: str) -> Iterator[tuple[Any, Any]]:
    for rank in ran[degree]:
        yield rank[mode], ran[0][0][mode]


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("mode", MODES)
def test_every_rank_returns_what_one_process_does(ran: Ran, mode: str, degree: int) -> None:
    """Velocities of latents and motion are the same on all ranks, whatever is given and whoever has which tokens."""
    for mine, alone in _pairs(ran, degree, mode):
        assert alone["velocity"].std() > 0.1
        assert (mine["velocity"] - alone["velocity"]).abs().max() <= TOLERANCE
        if alone["motion"] is not None:
            assert (mine["motion"] - alone["motion"]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("mode", MODES)
def test_gradients_add_up_to_those_of_one_process(ran: Ran, mode: str, degree: int) -> None:
    """The sum over ranks of each parameter's gradient, also of what only references or one rank's tokens use."""
    for mine, alone in _pairs(ran, degree, mode):
        assert (
            mine["gradients"].keys() == alone["gradients"].keys()
        )  # a rank that skips a weight would keep the others waiting for it
        largest = max(float(gradient.abs().max()) for gradient in alone["gradients"].values())
        assert largest > 1e-3
        for name, gradient in alone["gradients"].items():
            assert (mine["gradients"][name] - gradient).abs().max() <= TOLERANCE * max(largest, 1), name


def test_all_parameters_have_a_gradient_in_the_fullest_mode(ran: Ran) -> None:
    """So nothing is left out of the comparison above but the last layer's outputs to the reference stream."""
    assert set(ran[0][0]["everything"]["gradients"]) == {name for name, _ in VideoRefDiT(SMALL).named_parameters()}


@pytest.mark.parametrize("degree", DEGREES)
def test_a_generation_does_not_depend_on_the_degree(ran: Ran, degree: int) -> None:
    """24 stochastic steps of two chunks with references and guidance: noise is keyed, so ranks stay together."""
    for mine, alone in _pairs(ran, degree, "generation"):
        assert alone.numel() == 2 * (4 * 3 * 4 * 6 + 3 * 6)
        assert 0.1 < alone.std() < 100
        assert (mine - alone).abs().max() <= TOLERANCE * max(float(alone.abs().max()), 1)


@pytest.mark.parametrize("degree", DEGREES)
def test_cached_references_hold_on_to_their_own_bytes_only(ran: Ran, degree: int) -> None:
    """A rank's cache is 1 / degree of the whole, in storage that nothing else shares, as plain tensors to copy."""
    for mine, alone in _pairs(ran, degree, "cache"):
        assert mine["stored"] == mine["nbytes"] == mine["copy"] == alone["nbytes"] // degree
        assert mine["types"] == {"Tensor"}
