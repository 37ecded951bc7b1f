"""The memory model against what torch allocates while a small network runs."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from helios_model import blocks, flops, memory
from helios_model.config import ModelConfig, MotionConfig, SpeechFeatures, TextFeatures, preset
from helios_model.dit import Prediction, ReferenceCache, VideoRefDiT
from helios_model.flops import Workload

WORK = Workload(height=64, width=96, frames=33)
MODES = {
    "plain": WORK,
    "references": replace(WORK, reference_frames=9),
    "everything": replace(WORK, reference_frames=9, reference_audio=True, audio=True, motion=True, prefix=2),
}


@pytest.fixture
def small() -> ModelConfig:
    return ModelConfig(
        preset="small",
        channels=16,
        patch=2,
        dim=96,
        layers=4,
        heads=4,
        ffn=256,
        text=TextFeatures(dim=40, tokens=16),
        audio=SpeechFeatures(dim=24, tokens=4),
        motion=MotionConfig(dim=20),
    )


@pytest.fixture
def _fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU too the fused operations keep their inputs alone, as kernels do."""
    for name in ("modulated_norm", "norm_rope", "gated_residual"):
        fused = partial(checkpoint, getattr(blocks, name), use_reentrant=False, preserve_rng_state=False)
        monkeypatch.setattr(blocks, name, fused)


def test_training_state_is_sixteen_bytes_a_parameter_in_either_precision() -> None:
    """AdamW with bf16 weights: 2 + 2 + 12; with fp32 weights: 4 + 4 + 8; shared by as many devices as there are."""
    config = preset("wan-14b")
    count = sum(flops.parameters(config).values())
    assert memory.state(config, "bf16").total == memory.state(config, "fp32").total == 16 * count
    assert memory.state(config, "bf16").weights == 2 * count
    assert memory.state(config, "bf16", shards=8).total == 16 * -(-count // 8)
    with pytest.raises(ValueError, match="shards must be at least 1, not 0"):
        memory.state(config, shards=0)


@pytest.mark.parametrize("kept", [None, 30])
def test_reference_cache_is_as_large_as_the_networks(small: ModelConfig, kept: int | None) -> None:
    """Keys and values take exactly the bytes that the network's cache holds; under sequence parallelism a share."""
    work = replace(WORK, reference_frames=9, reference_tokens=kept, batch=2)
    with torch.no_grad():
        cache = _encode(VideoRefDiT(small), work)
    assert cache is not None
    assert memory.reference_cache(small, work, "fp32") == cache.nbytes
    assert memory.reference_cache(small, work, "bf16") == cache.nbytes // 2
    assert memory.reference_cache(small, replace(work, sequence_parallel=4), "fp32") == cache.nbytes // 4


@pytest.mark.parametrize("mode", MODES)
def test_a_pass_without_gradients_peaks_where_the_model_says(small: ModelConfig, mode: str) -> None:
    """Within 5% of the most that is allocated at a time."""
    work, network = MODES[mode], VideoRefDiT(small)
    with torch.no_grad():
        reference = _encode(network, work)
        _, peak = _allocated(lambda: _forward(network, work, reference))
    assert memory.generation_activations(small, work, "fp32") == pytest.approx(peak, rel=0.05)


def test_guidance_holds_its_passes_at_once(small: ModelConfig) -> None:
    """Three passes hold the activations of a batch of three."""
    guided, batched = replace(WORK, passes=3), replace(WORK, batch=3)
    assert memory.generation_activations(small, guided) == memory.generation_activations(small, batched)


@pytest.mark.usefixtures("_fused")
@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
@pytest.mark.parametrize("mode", ["plain", "everything"])
def test_a_layer_keeps_what_the_model_says(small: ModelConfig, mode: str, checkpointing: flops.Checkpointing) -> None:
    """What one more layer keeps for the way back is within 15%, by policy; embeddings and head are not counted."""

    def held(layers: int) -> int:
        network = VideoRefDiT(replace(small, layers=layers))
        network.checkpointing = checkpointing
        return _allocated(lambda: _forward(network, MODES[mode], _encode(network, MODES[mode])))[0]

    def expected(layers: int) -> int:
        return memory.training_activations(replace(small, layers=layers), MODES[mode], "fp32", checkpointing)

    assert expected(4) - expected(2) == pytest.approx(held(4) - held(2), rel=0.15)


def test_checkpointing_and_devices_take_memory_away() -> None:
    """Full keeps less than selective, that less than none; 8 devices an eighth; an unknown policy is refused."""
    config, work = preset("wan-14b"), Workload(height=480, width=896, frames=81, reference_frames=20)
    policies: tuple[flops.Checkpointing, ...] = ("full", "selective", "none")
    sizes = [memory.training_activations(config, work, "bf16", policy) for policy in policies]
    assert sizes == sorted(set(sizes))
    shared = replace(work, sequence_parallel=8)
    assert memory.training_activations(config, shared, "bf16", "none") == sizes[-1] // 8
    with pytest.raises(ValueError, match="checkpointing is none, selective, full, not 'half'"):
        memory.training_activations(config, work, "bf16", "half")  # type: ignore[arg-type]


def _allocated(run: Callable[[], Any]) -> tuple[int, int]:
    """Bytes that are allocated when `run` is over and its result is held, and the most meanwhile."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        result = run()
    held = peak = 0
    assert recorded.profiler is not None
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    del result
    return held, peak


def _encode(network: VideoRefDiT, work: Workload) -> ReferenceCache | None:
    if not work.reference_frames:
        return None
    frames, kept = flops.latent_frames(work.reference_frames), work.reference_tokens
    return network.encode_reference(
        _latents(work, frames),
        audio_BTLK=torch.randn(work.batch, frames, 4, 24) if work.reference_audio else None,
        keep_BK=None if kept is None else torch.arange(kept).repeat(work.batch, 1),
    )


def _forward(network: VideoRefDiT, work: Workload, reference: ReferenceCache | None) -> Prediction:
    frames = flops.latent_frames(work.frames)
    prediction: Prediction = network(
        _latents(work, frames),
        torch.full((work.batch,), 0.5),
        torch.randn(work.batch, 16, 40),
        audio_BTLK=torch.randn(work.batch, work.prefix + frames, 4, 24) if work.audio else None,
        prefix_BCTHW=_latents(work, work.prefix) if work.prefix else None,
        motion_BTM=torch.randn(work.batch, frames, 20) if work.motion else None,
        reference=reference,
    )
    return prediction


def _latents(work: Workload, frames: int) -> torch.Tensor:
    return torch.randn(work.batch, 16, frames, work.height // flops.VAE_SIDE, work.width // flops.VAE_SIDE)
