"""The cost model against the network itself, and against what was published."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from helios_model import flops, streams
from helios_model.config import PRESETS, ModelConfig, MotionConfig, SpeechFeatures, TextFeatures, preset
from helios_model.dit import Prediction, ReferenceCache, VideoRefDiT
from helios_model.flops import Workload

TAVR = Workload(height=480, width=896, frames=81, reference_frames=20, anchor=True)
PLAIN = Workload(height=64, width=96, frames=17)
MODES = {
    "plain": PLAIN,
    "references": replace(PLAIN, reference_frames=9),
    "anchor and prefix": replace(PLAIN, prefix=2, anchor=True),
    "sound": replace(PLAIN, audio=True, prefix=1),
    "motion": replace(PLAIN, motion=True, audio=True),
    "batch": replace(PLAIN, batch=2, reference_frames=5, text_tokens=11),
    "everything": replace(
        PLAIN, reference_frames=9, reference_audio=True, audio=True, motion=True, prefix=2, anchor=True, anchor_tokens=7
    ),
    "selected": replace(PLAIN, reference_frames=9, reference_tokens=36),
}


@pytest.fixture(scope="module")
def small() -> ModelConfig:
    return ModelConfig(
        preset="small",
        channels=16,
        patch=2,
        dim=48,
        layers=3,
        heads=4,
        ffn=128,
        text=TextFeatures(dim=40, tokens=16),
        audio=SpeechFeatures(dim=24, tokens=4),
        motion=MotionConfig(dim=20),
    )


def test_published_tokens_and_flops_come_out() -> None:
    """TAVR, table 4: 45,360 tokens, 45.30 TFLOPs; the formula gives 45.29. 20 reference frames are 5 latent frames."""
    config = preset("wan-14b")
    count = flops.tokens(config, TAVR)
    assert (count.frame, count.noisy // count.frame, count.reference // count.frame) == (1680, 21, 5)
    assert count.visual == 45_360
    assert flops.reference_self_attention(config, TAVR) == pytest.approx(45.29e12, abs=0.005e12)


def test_published_token_selection_comes_out_within_a_third_of_a_percent() -> None:
    """TAVR, table 4: 37,715 tokens on average, 36.56 TFLOPs. At the average, with the background whole: 36.47."""
    config = preset("wan-14b")
    kept = replace(TAVR, reference_tokens=37_715 - 22 * 1680)
    found = flops.reference_self_attention(config, kept)
    sys.stdout.write(f"37,715 tokens: {found / 1e12:.2f} TFLOPs, published 36.56\n")
    assert flops.tokens(config, kept).visual == 37_715
    assert found == pytest.approx(36.47e12, abs=0.005e12)
    assert found == pytest.approx(36.56e12, rel=0.003)


def test_formula_of_sparse_reference_attention() -> None:
    """Projections and scores of both streams are `4 d N_g (N_g + N_r) + 4 d N_r^2 + 8 d^2 (N_g + N_r)`."""
    config = preset("wan-1.3b")
    count = flops.tokens(config, TAVR)
    d, g, r = config.dim, count.generation, count.reference
    expected = 4 * d * g * (g + r) + 4 * d * r**2 + 8 * d**2 * (g + r)
    assert flops.reference_self_attention(config, TAVR) == expected


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_the_networks(name: str) -> None:
    """Every preset has exactly as many parameters as its network, in all and part by part."""
    with torch.device("meta"):
        network = VideoRefDiT(preset(name))
    expected: dict[str, int] = dict.fromkeys(flops.parameters(preset(name)), 0)
    for path, parameter in network.named_parameters():
        expected[_part(path)] += parameter.numel()
    assert flops.parameters(preset(name)) == expected


def _part(path: str) -> str:
    inside = {
        "self_attn": "self-attention",
        "norm_text": "text cross-attention",
        "cross_attn": "text cross-attention",
        "norm_audio": "audio cross-attention",
        "audio_attn": "audio cross-attention",
        "ffn": "feed-forward",
        "modulation": "modulation",
    }
    outside = {
        "patch_embedding": "patches and streams",
        "stream_embedding": "patches and streams",
        "text_embedding": "text embedding",
        "time_embedding": "time embedding",
        "time_projection": "time embedding",
        "audio_embedding": "audio embedding",
        "audio_position": "audio embedding",
        "head_modulation": "modulation",
        "head": "head",
    }
    words = path.split(".")
    if words[0] == "blocks":
        return inside[words[2]]
    return "motion stream" if words[0].startswith("motion") else outside[words[0]]


@pytest.mark.parametrize("mode", MODES)
def test_a_counted_forward_agrees(small: ModelConfig, mode: str) -> None:
    """What torch counts while the network runs is what the model says, within 1%, in each mode."""
    work = MODES[mode]
    network = VideoRefDiT(small)
    with torch.no_grad(), _counter() as counter:
        reference = _encode(network, work)
        encoded = counter.get_total_flops()
        _forward(network, work, reference)
    expected = flops.reference_pass(small, work).total
    assert encoded == pytest.approx(expected, rel=0.01)
    assert counter.get_total_flops() - encoded == pytest.approx(flops.generation_pass(small, work).total, rel=0.01)


@pytest.mark.parametrize("window", [1, 2, 3, 9])
def test_windows_are_counted_as_they_run(small: ModelConfig, window: int) -> None:
    """Local windows cost what they cost in the network, at the ends of the clip too."""
    config = replace(small, window=window)
    work = replace(MODES["everything"], frames=25)
    network = VideoRefDiT(config)
    with torch.no_grad():
        reference = _encode(network, work)
        with _counter() as counter:
            _forward(network, work, reference)
    assert counter.get_total_flops() == pytest.approx(flops.generation_pass(config, work).total, rel=0.01)


@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
def test_a_counted_training_step_agrees(small: ModelConfig, checkpointing: flops.Checkpointing) -> None:
    """Forward, backward and what checkpointing computes again, within 1%."""
    work = MODES["everything"]
    network = VideoRefDiT(small)
    network.checkpointing = checkpointing
    with _counter() as counter:
        made = _forward(network, work, _encode(network, work))
        assert made.motion_BTM is not None
        loss = made.velocity_BCTHW.square().mean() + made.motion_BTM.square().mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
    expected = flops.training_step(small, work, checkpointing)
    assert counter.get_total_flops() == pytest.approx(expected.hardware, rel=0.01)


def test_a_whole_generation_encodes_references_once_where_they_are_cached() -> None:
    """Steps x passes of g, and r once with the cache, in every pass without it."""
    config, work = preset("wan-14b"), replace(TAVR, steps=24, passes=3)
    g, r = flops.generation_pass(config, work).total, flops.reference_pass(config, work).total
    assert flops.generation(config, work) == 24 * 3 * g + r
    assert flops.generation(config, replace(work, cached=False)) == 24 * 3 * (g + r)
    assert flops.step(config, work) == 3 * g


def test_utilization_is_a_share_of_the_peak() -> None:
    """200 FLOPs in 4 s of 100 a second are half; no time is refused."""
    assert flops.mfu(200, 4, 100) == 0.5
    with pytest.raises(ValueError, match="more than 0"):
        flops.mfu(200, 0, 100)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"height": 470}, "height must be a multiple of 16 pixels, as 464, not 470"),
        ({"width": 5}, "width must be a multiple of 16 pixels, as 16, not 5"),
        ({"frames": 80}, r"frames must be 4k \+ 1, as 77 or 81, not 80"),
        ({"frames": 0}, "frames must be at least 1, not 0"),
        ({"frames": 513}, "noisy latent frames must be at most 128, not 129"),
        ({"prefix": 3}, "prefix latent frames must be at most 2, not 3"),
        ({"sequence_parallel": 16}, "divide the 40 heads of wan-14b, as 1, 2, 4, 5, 8, 10, 20, 40 do, not 16"),
        ({"reference_tokens": 8401}, "reference tokens must be at most 8400, which is all there are, not 8401"),
        ({"anchor": False, "anchor_tokens": 1}, "anchor tokens must be at most 0"),
        ({"reference_frames": 0, "reference_audio": True}, "reference audio needs reference frames"),
    ],
)
def test_what_cannot_be_is_refused_with_what_could(change: dict[str, Any], said: str) -> None:
    """An impossible workload says what was expected."""
    with pytest.raises(ValueError, match=said):
        flops.tokens(preset("wan-14b"), replace(TAVR, **change))


def test_inputs_that_a_network_lacks_are_refused() -> None:
    """Motion for a network without a motion stream, or another size than the one it knows, is an error."""
    work = Workload(height=16, width=16, frames=5)
    with pytest.raises(ValueError, match="micro has no motion input"):
        flops.tokens(preset("micro"), replace(work, motion=True))
    with pytest.raises(ValueError, match="height must be 16"):
        flops.tokens(preset("micro"), replace(work, height=32))
    with pytest.raises(ValueError, match="text tokens must be 32"):
        flops.tokens(preset("micro"), replace(work, text_tokens=5000))


def test_the_limits_are_the_networks() -> None:
    """How many latent frames a stream may have is what the network allows."""
    most = {
        "noisy": streams.REFERENCE_TIME,
        "prefix": streams.PREFIX_FRAMES,
        "reference": streams.REFERENCE_FRAMES,
    }
    assert most == flops.MOST_FRAMES


def _counter() -> FlopCounterMode:
    """Torch's counter, told of the attention that it does not know; backwards it is four products of two."""
    aten = torch.ops.aten

    def forward(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]  # torch's

    def backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
        return 2 * forward(query, key, value)

    mapping: dict[Any, Callable[..., int]] = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    return FlopCounterMode(display=False, custom_mapping=mapping)


def _encode(network: VideoRefDiT, work: Workload) -> ReferenceCache | None:
    if not work.reference_frames:
        return None
    frames, config = flops.latent_frames(work.reference_frames), network.config
    whole = flops.tokens(config, replace(work, reference_tokens=None)).reference
    return network.encode_reference(
        _latents(config, work, frames),
        audio_BTLK=_sound(config, work, frames) if work.reference_audio else None,
        keep_BK=_keep(whole, work.reference_tokens, work.batch),
    )


def _forward(network: VideoRefDiT, work: Workload, reference: ReferenceCache | None) -> Prediction:
    config, frames = network.config, flops.latent_frames(work.frames)
    assert isinstance(config.text, TextFeatures)
    assert config.motion is not None
    count = flops.tokens(config, work)
    prediction: Prediction = network(
        _latents(config, work, frames),
        torch.full((work.batch,), 0.5),
        torch.randn(work.batch, count.text, config.text.dim),
        audio_BTLK=_sound(config, work, work.prefix + frames) if work.audio else None,
        prefix_BCTHW=_latents(config, work, work.prefix) if work.prefix else None,
        anchor_BCHW=_latents(config, work, 1)[:, :, 0] if work.anchor else None,
        anchor_keep_BK=_keep(count.frame, work.anchor_tokens, work.batch),
        motion_BTM=torch.randn(work.batch, frames, config.motion.dim) if work.motion else None,
        reference=reference,
    )
    return prediction


def _latents(config: ModelConfig, work: Workload, frames: int) -> Tensor:
    side = flops.VAE_SIDE
    return torch.randn(work.batch, config.channels, frames, work.height // side, work.width // side)


def _sound(config: ModelConfig, work: Workload, frames: int) -> Tensor:
    assert config.audio is not None
    return torch.randn(work.batch, frames, config.audio.tokens, config.audio.dim)


def _keep(whole: int, kept: int | None, batch: int) -> Tensor | None:
    """Every so manyth token."""
    if kept is None:
        return None
    return (torch.arange(kept) * whole // kept).repeat(batch, 1)
