import pytest
import torch

from helios_model.config import ModelConfig
from helios_model.dit import VideoRefDiT
from helios_model.sampler import (
    Conditions,
    Guidance,
    conditional_velocity,
    euler_step,
    guided_velocity,
    keyed_noise,
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

    def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return x * 0.3 + sigma

    x = keyed_noise(SHAPE, seed=7, chunk=0, step=0)
    sigmas = schedule(5, 2.0)
    for index in range(5):
        x = x + (sigmas[index + 1] - sigmas[index]) * velocity(x, sigmas[index])
    assert torch.allclose(sample(velocity, SHAPE, sigmas, seed=7), x, atol=1e-6)


def test_an_exact_velocity_reaches_the_clip_in_any_number_of_steps() -> None:
    """With v = (x - x0) / sigma one step and many end at x0, deterministic and stochastic."""
    clip = torch.linspace(-1, 1, 48).reshape(SHAPE)

    def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return (x - clip) / sigma

    for steps, eta in ((1, 0.0), (7, 0.0), (7, 0.5)):
        assert torch.allclose(sample(velocity, SHAPE, schedule(steps, 2.0), seed=1, eta=eta), clip, atol=1e-5)


def test_stochastic_euler_keeps_the_noise_level() -> None:
    """From x_s made of x0 and noise, a stochastic step with the exact velocity has the marginal of the target level."""
    generator = torch.Generator().manual_seed(0)
    clip, noise, fresh = torch.randn(3, 200_000, generator=generator).unbind(0)
    x = euler_step(0.2 * clip + 0.8 * noise, noise - clip, 0.8, 0.5, eta=0.6, noise=fresh)
    assert float(x.var()) == pytest.approx(0.5, rel=0.02)
    assert float((x * clip).mean()) == pytest.approx(0.5, rel=0.02)
    assert float(((x - 0.5 * clip) * fresh).mean()) > 0.1


def test_noise_is_decided_by_its_key_and_not_by_who_slices_it() -> None:
    """Equal keys agree, each part of the key matters, and a slice is a slice of the same whole."""
    whole = keyed_noise(SHAPE, seed=1, chunk=2, step=3)
    torch.manual_seed(99)
    assert torch.equal(whole[:, :, 1:], keyed_noise(SHAPE, seed=1, chunk=2, step=3)[:, :, 1:])
    others = [(2, 2, 3), (1, 3, 3), (1, 2, 4)]
    for seed, chunk, step in others:
        assert not torch.equal(whole, keyed_noise(SHAPE, seed=seed, chunk=chunk, step=step))


def given(config: ModelConfig, model: VideoRefDiT) -> Conditions:
    generator = torch.Generator().manual_seed(4)
    audio = torch.randn(2, 3, config.log_mel.tokens, config.log_mel.dim, generator=generator)
    reference = torch.randn(2, config.channels, 2, 2, 2, generator=generator)
    words, silent = (
        tokenize([prompt] * 2, buckets=config.words.buckets, length=config.words.tokens) for prompt in ("red", "")
    )
    cache = model.encode_reference(reference)
    return Conditions(text_BL=words, silent_text_BL=silent, audio_BTLK=audio, reference=cache)


def test_guidance_is_the_three_pass_combination(model: VideoRefDiT, config: ModelConfig) -> None:
    """v0 + w_t (v_c0 - v0) + w_a (v_ca - v_c0), each pass as if run alone."""
    conditions = given(config, model)
    z, sigma = torch.randn(2, config.channels, 3, 2, 2), torch.tensor([0.7, 0.4])
    v_none = model(z, sigma, conditions.silent_text_BL, reference=conditions.reference).velocity_BCTHW
    v_text = model(z, sigma, conditions.text_BL, reference=conditions.reference).velocity_BCTHW
    v_all = conditional_velocity(model, z, sigma, conditions)
    guided = guided_velocity(model, z, sigma, conditions, Guidance(text=3.0, audio=1.8))
    assert torch.allclose(guided, v_none + 3.0 * (v_text - v_none) + 1.8 * (v_all - v_text), atol=1e-4)
    plain = guided_velocity(model, z, sigma, conditions, Guidance(text=1.0, audio=1.0))
    assert torch.allclose(plain, v_all, atol=1e-4)
