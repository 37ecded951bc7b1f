from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from helios_model.config import ModelConfig, MotionConfig
from helios_model.dit import Prediction, VideoRefDiT
from helios_model.sampler import (
    Conditions,
    Guidance,
    Sample,
    conditional_velocity,
    euler_step,
    guided_velocity,
    keyed_noise,
    make_velocity,
    sample,
    schedule,
    shifted,
)
from helios_model.text import tokenize

SHAPE = (1, 4, 3, 2, 2)


def test_the_schedule_falls_from_one_to_zero_and_shift_raises_it() -> None:
    """steps + 1 levels; k > 1 spends more of them at high noise; k = 1 is even."""
    assert schedule(4, 1.0) == [1.0, 0.75, 0.5, 0.25, 0.0]
    levels = schedule(4, 3.0)
    assert levels[0] == 1
    assert levels[-1] == 0
    assert levels[2] == pytest.approx(0.75)
    assert float(shifted(torch.tensor(0.5), 1.0)) == 0.5


def test_eta_zero_is_plain_euler() -> None:
    """The sampler then equals x + (s_j - s_i) v written out."""

    def velocity(x: Sample, sigma: float) -> Prediction:
        return Prediction(x.latents_BCTHW * 0.3 + sigma, None)

    x = keyed_noise(SHAPE, seed=7, chunk=0, step=0)
    sigmas = schedule(5, 2.0)
    for index in range(5):
        x = x + (sigmas[index + 1] - sigmas[index]) * (x * 0.3 + sigmas[index])
    assert torch.allclose(sample(velocity, SHAPE, sigmas, seed=7).latents_BCTHW, x, atol=1e-6)


def test_an_exact_velocity_reaches_the_clip_in_any_number_of_steps() -> None:
    """With v = (x - x0) / sigma one step and many end at x0, deterministic and stochastic."""
    clip = torch.linspace(-1, 1, 48).reshape(SHAPE)

    def velocity(x: Sample, sigma: float) -> Prediction:
        return Prediction((x.latents_BCTHW - clip) / sigma, None)

    for steps, eta in ((1, 0.0), (7, 0.0), (7, 0.5)):
        made = sample(velocity, SHAPE, schedule(steps, 2.0), seed=1, eta=eta).latents_BCTHW
        assert torch.allclose(made, clip, atol=1e-5)


def test_stochastic_euler_keeps_the_noise_level() -> None:
    """From x_s made of x0 and noise, a stochastic step with the exact velocity has the marginal of the target level."""
    generator = torch.Generator().manual_seed(0)
    clip, noise, fresh = torch.randn(3, 200_000, generator=generator).unbind(0)
    x = euler_step(0.2 * clip + 0.8 * noise, noise - clip, 0.8, 0.5, eta=0.6, noise=fresh)
    assert float(x.var()) == pytest.approx(0.5, rel=0.02)
    assert float((x * clip).mean()) == pytest.approx(0.5, rel=0.02)
    assert float(((x - 0.5 * clip) * fresh).mean()) > 0.1


def test_an_eta_that_overshoots_below_zero_noise_is_refused() -> None:
    """The message says what range the step takes; its ends work, and a run is refused before its first pass."""
    x = torch.ones(1)
    with pytest.raises(ValueError, match=r"eta is 6.0: the step from sigma 0.1 to 0.05 takes 0 to 2$"):
        euler_step(x, x, 0.1, 0.05, eta=6.0, noise=x)
    with pytest.raises(ValueError, match=r"eta is -0\.5, expected 0 or more"):
        euler_step(x, x, 0.1, 0.05, eta=-0.5, noise=x)
    with pytest.raises(ValueError, match="eta is nan, expected 0 or more"):
        euler_step(x, x, 0.1, 0.05, eta=float("nan"), noise=x)
    assert euler_step(x, x, 0.1, 0.05, eta=2.0, noise=x).isfinite()
    assert torch.equal(euler_step(x, x, 0.1, 0.0, eta=6.0), x - 0.1 * x)
    with pytest.raises(ValueError, match="takes 0 to"):
        sample(lambda *_: pytest.fail("the network ran"), SHAPE, schedule(24, 1.0), seed=0, eta=6.0)


def test_noise_is_decided_by_its_key_and_not_by_who_slices_it() -> None:
    """Equal keys agree, each part of the key matters, and a slice is a slice of the same whole."""
    whole = keyed_noise(SHAPE, seed=1, chunk=2, step=3)
    torch.manual_seed(99)
    assert torch.equal(whole[:, :, 1:], keyed_noise(SHAPE, seed=1, chunk=2, step=3)[:, :, 1:])
    others = [(2, 2, 3), (1, 3, 3), (1, 2, 4)]
    for seed, chunk, step in others:
        assert not torch.equal(whole, keyed_noise(SHAPE, seed=seed, chunk=chunk, step=step))
    assert not torch.equal(whole, keyed_noise(SHAPE, seed=1, chunk=2, step=3, stream="motion"))


def given(config: ModelConfig, model: VideoRefDiT, **more: Any) -> Conditions:
    generator = torch.Generator().manual_seed(4)
    audio = torch.randn(2, 3, config.log_mel.tokens, config.log_mel.dim, generator=generator)
    reference = torch.randn(2, config.channels, 2, 2, 2, generator=generator)
    words, silent = (
        tokenize([prompt] * 2, buckets=config.words.buckets, length=config.words.tokens) for prompt in ("red", "")
    )
    cache = model.encode_reference(reference)
    return Conditions(text=words, silent_text=silent, audio_BTLK=audio, reference=cache, **more)


@torch.no_grad()
def test_guidance_is_the_three_pass_combination(model: VideoRefDiT, config: ModelConfig) -> None:
    """v0 + w_t (v_c0 - v0) + w_a (v_ca - v_c0), each pass as if run alone."""
    conditions = given(config, model)
    z, sigma = torch.randn(2, config.channels, 3, 2, 2), torch.tensor([0.7, 0.4])
    v_none = model(z, sigma, conditions.silent_text, reference=conditions.reference).velocity_BCTHW
    v_text = model(z, sigma, conditions.text, reference=conditions.reference).velocity_BCTHW
    v_all = conditional_velocity(model, z, sigma, conditions).velocity_BCTHW
    guided = guided_velocity(model, z, sigma, conditions, Guidance(text=3.0, audio=1.8)).velocity_BCTHW
    assert torch.allclose(guided, v_none + 3.0 * (v_text - v_none) + 1.8 * (v_all - v_text), atol=1e-4)
    plain = guided_velocity(model, z, sigma, conditions, Guidance(text=1.0, audio=1.0)).velocity_BCTHW
    assert torch.allclose(plain, v_all, atol=1e-4)


@torch.no_grad()
def test_guidance_runs_with_half_precision_weights(model: VideoRefDiT, config: ModelConfig) -> None:
    """bf16 weights that hear sound give an fp32 velocity near that of fp32 weights; the stream stays bf16."""
    conditions, z = given(config, model), torch.randn(2, config.channels, 3, 2, 2)
    sigma, guidance = torch.tensor([0.7, 0.4]), Guidance(text=1.0, audio=1.0)
    exact = guided_velocity(model, z, sigma, conditions, guidance).velocity_BCTHW
    model.to(torch.bfloat16)
    halved = given(config, model)
    streams = list[torch.dtype]()
    for block in model.blocks:
        block.register_forward_hook(lambda _module, _inputs, out: streams.append(out.dtype))
    rough = guided_velocity(model, z, sigma, halved, guidance).velocity_BCTHW
    assert set(streams) == {torch.bfloat16}
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < 0.1 * exact.norm()


@pytest.fixture
def moving(config: ModelConfig, lively: Callable[[ModelConfig], VideoRefDiT]) -> VideoRefDiT:
    """A network with a motion stream."""
    return lively(replace(config, motion=MotionConfig(dim=5)))


def test_guidance_takes_every_input_into_all_three_passes(moving: VideoRefDiT) -> None:
    """With both scales 1 the batch of three gives the fully conditioned pass, motion included."""
    config = moving.config
    draw = torch.Generator().manual_seed(3)
    conditions = given(
        config,
        moving,
        anchor_BCHW=torch.randn(2, config.channels, 2, 2, generator=draw),
        anchor_keep_BK=torch.tensor([[0, 2], [1, 3]]),
        sample_motion=True,
    )
    z, motion = torch.randn(2, config.channels, 3, 2, 2, generator=draw), torch.randn(2, 3, 5, generator=draw)
    sigma = torch.tensor([0.7, 0.4])
    with torch.no_grad():
        alone = conditional_velocity(moving, z, sigma, conditions, motion_BTM=motion)
        guided = guided_velocity(moving, z, sigma, conditions, Guidance(text=1.0, audio=1.0), motion_BTM=motion)
    for ours, theirs in zip(guided, alone, strict=True):
        assert ours is not None
        assert theirs is not None
        assert (ours - theirs).abs().max() <= 1e-4


@pytest.mark.parametrize(("guidance", "batch"), [(None, 2), (Guidance(text=5.0, audio=1.8), 6)])
def test_a_step_is_one_call_of_the_network(
    moving: VideoRefDiT, monkeypatch: pytest.MonkeyPatch, guidance: Guidance | None, batch: int
) -> None:
    """A distilled student runs the batch once a step; guidance runs it three times over, in one call."""
    sizes, forward = list[int](), moving.forward

    def counting(z: torch.Tensor, *args: Any, **kwargs: Any) -> Prediction:
        sizes.append(len(z))
        return forward(z, *args, **kwargs)

    monkeypatch.setattr(moving, "forward", counting)
    velocity = make_velocity(moving, given(moving.config, moving), guidance)
    with torch.no_grad():
        sample(velocity, (2, moving.config.channels, 3, 2, 2), schedule(4, 3.0), seed=0)
    assert sizes == [batch] * 4


@pytest.mark.parametrize("guidance", [None, Guidance(text=5.0, audio=1.8)])
def test_imposed_motion_is_left_untouched(
    moving: VideoRefDiT, monkeypatch: pytest.MonkeyPatch, guidance: Guidance | None
) -> None:
    """Every step sees the very track at sigma 0, and the track decides the video."""
    seen, forward = list[tuple[torch.Tensor, torch.Tensor]](), moving.forward

    def watching(*args: Any, **kwargs: Any) -> Prediction:
        seen.append((kwargs["motion_BTM"], kwargs["motion_sigma_B"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(moving, "forward", watching)
    track = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))

    @torch.no_grad()
    def video(track: torch.Tensor) -> torch.Tensor:
        velocity = make_velocity(moving, given(moving.config, moving, motion_BTM=track), guidance)
        return sample(velocity, (2, moving.config.channels, 3, 2, 2), schedule(3, 3.0), seed=0, eta=0.5).latents_BCTHW

    first = video(track)
    times = 1 if guidance is None else 3
    assert len(seen) == 3
    for motion, sigma in seen:
        assert torch.equal(motion, track.repeat(times, 1, 1))
        assert torch.equal(sigma, torch.zeros(2 * times))
    assert (video(track + 1) - first).abs().max() > 1e-3


def test_motion_is_sampled_with_the_latents_from_noise_of_its_own(moving: VideoRefDiT) -> None:
    """It follows the network's motion velocity down the same levels, and its noise shifts no latents' noise."""
    shapes: dict[str, Any] = {"shape": (2, moving.config.channels, 3, 2, 2), "motion_shape": (2, 3, 5)}
    conditions, first = given(moving.config, moving, sample_motion=True), list[Sample]()
    inner = make_velocity(moving, conditions, None)

    def velocity(x: Sample, sigma: float) -> Prediction:
        first.append(x)
        return inner(x, sigma)

    with torch.no_grad():
        made = sample(velocity, sigmas=[1.0, 0.0], seed=2, **shapes)
        v = inner(first[0], 1.0)
    assert first[0].motion_BTM is not None
    assert v.motion_BTM is not None
    assert torch.equal(first[0].motion_BTM, keyed_noise((2, 3, 5), seed=2, chunk=0, step=0, stream="motion"))
    assert torch.equal(first[0].latents_BCTHW, keyed_noise(shapes["shape"], seed=2, chunk=0, step=0))
    assert made.motion_BTM is not None
    torch.testing.assert_close(made.motion_BTM, first[0].motion_BTM - v.motion_BTM)


def test_motion_that_contradicts_itself_is_refused(model: VideoRefDiT, config: ModelConfig) -> None:
    """Imposed and sampled at once, sampled beside a draft, or sampled by a network without a motion stream."""
    track, draft = torch.zeros(2, 3, 5), torch.zeros(2, config.channels, 3, 2, 2)
    with pytest.raises(ValueError, match="motion_BTM is imposed"):
        given(config, model, motion_BTM=track, sample_motion=True)
    with pytest.raises(ValueError, match="impose it as motion_BTM"):
        given(config, model, draft_BCTHW=draft, sample_motion=True)
    silent = make_velocity(model, given(config, model), None)
    with torch.no_grad(), pytest.raises(ValueError, match="no motion stream"):
        sample(silent, draft.shape, [1.0, 0.0], seed=0, motion_shape=track.shape)
