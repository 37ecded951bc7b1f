"""Compiled blocks: one graph for all layers, the eager result, and no graph for every length."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from helios_model.checkpointing import Checkpointing
from helios_model.compiling import compile_blocks
from helios_model.config import ModelConfig, SpeechFeatures, TextFeatures
from helios_model.dit import VideoRefDiT

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
Lively = Callable[[ModelConfig], VideoRefDiT]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def given(frames: int = 3) -> dict[str, Tensor]:
    return {
        "z_BCTHW": draw(2, 4, frames, 4, 6),
        "sigma_B": torch.tensor([0.3, 0.9]),
        "text": draw(2, 5, 12, seed=1),
    }


def sound(frames: int = 3) -> dict[str, Tensor]:
    return {"audio_BTLK": draw(2, frames, 3, 10, seed=2)}


def reference(frames: int = 2, kept: int = 7) -> dict[str, Tensor]:
    return {
        "reference_BCTHW": draw(2, 4, frames, 4, 6, seed=3),
        "reference_audio_BTLK": draw(2, frames, 3, 10, seed=4),
        "reference_keep_BK": torch.arange(kept).expand(2, -1),
    }


ANCHOR = {"anchor_BCHW": draw(2, 4, 4, 6, seed=5), "anchor_keep_BK": torch.tensor([[0, 2, 3], [1, 2, 5]])}
VARIANTS: dict[str, tuple[dict[str, Tensor], int]] = {
    "text and sound": (given() | sound() | {"audio_keep_B": torch.tensor([0.0, 1.0])}, 1),
    "dropped tokens of the anchor": (given() | sound() | ANCHOR, 1),
    "silent references": (given() | {"reference_BCTHW": draw(2, 4, 2, 4, 6)}, 3),
    "windows": (given() | sound() | reference(), 3),
}
"""What is given, and how many graphs that takes: of the generation, of references, and of the last layer's keys."""


@pytest.mark.parametrize("variant", VARIANTS)
def test_compiled_blocks_give_the_eager_result(lively: Lively, variant: str) -> None:
    """Without a break in the graph, which is an error, and with one graph for three layers."""
    inputs, graphs = VARIANTS[variant]
    model = lively(replace(SMALL, window=1 if variant == "windows" else None))
    counter = CompileCounterWithBackend("aot_eager")
    with torch.no_grad():
        eager = model(**inputs).velocity_BCTHW
        compile_blocks(model, backend=counter)
        compiled = model(**inputs).velocity_BCTHW
    assert counter.frame_count == graphs
    assert eager.std() > 0.1
    assert (compiled - eager).abs().max() <= 1e-5


@pytest.mark.parametrize("policy", ["none", "selective", "full"])
def test_compiled_blocks_give_the_eager_gradients(lively: Lively, policy: Checkpointing) -> None:
    """With checkpoints in the graph, for every parameter, through references that are encoded in forward."""
    model = lively(SMALL)
    model.checkpointing = policy
    inputs: dict[str, Any] = given() | sound() | ANCHOR | reference()
    eager = _gradients(model, inputs)
    compile_blocks(model, backend="aot_eager")
    compiled = _gradients(model, inputs)
    assert eager.keys() == compiled.keys()
    for name, gradient in eager.items():
        assert (compiled[name] - gradient).abs().max() <= 1e-5 * max(1.0, float(gradient.abs().max())), name


def _gradients(model: VideoRefDiT, inputs: dict[str, Any]) -> dict[str, Tensor]:
    model.zero_grad()
    model(**inputs).velocity_BCTHW.square().mean().backward()
    return {name: part.grad for name, part in model.named_parameters() if part.grad is not None}


def test_a_second_length_is_the_last_that_is_compiled(lively: Lively) -> None:
    """More frames, tokens and references make one more graph each; after that lengths are free."""
    model = lively(SMALL)
    counter = CompileCounterWithBackend("eager")
    compile_blocks(model, backend=counter)
    made = []
    with torch.no_grad():
        for frames in (3, 4, 5, 9):
            model(**given(frames), **sound(frames), **reference(frames - 1, 6 * (frames - 1) - 1))
            made.append(counter.frame_count)
    assert made[0] == 3
    assert made[1] <= 6
    assert made[1:] == [made[1]] * 3


def test_a_copy_runs_its_own_weights(lively: Lively) -> None:
    """A deep copy of a compiled network, as for an average of weights, is compiled and does not run the original's."""
    model = lively(SMALL)
    compile_blocks(model, backend="eager")
    copy = deepcopy(model)
    with torch.no_grad():
        before = copy(**given()).velocity_BCTHW
        for parameter in model.blocks.parameters():
            parameter.mul_(0.5)
        assert torch.equal(copy(**given()).velocity_BCTHW, before)
        assert not torch.allclose(model(**given()).velocity_BCTHW, before, atol=1e-3)
    assert copy.state_dict().keys() == VideoRefDiT(SMALL).state_dict().keys()
