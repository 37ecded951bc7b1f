from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from helios_model.attention import KeyValue
from helios_model.config import ModelConfig, preset
from helios_model.dit import Prediction, ReferenceCache, VideoRefDiT
from helios_model.text import tokenize


def inputs(config: ModelConfig, *, batch: int = 2, frames: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(batch, *shape, generator=generator)

    return {
        "z": noise(config.channels, frames, 2, 2),
        "sigma": torch.linspace(0.3, 0.9, batch),
        "text": tokenize(["a red shirt", ""][:batch], buckets=config.words.buckets, length=config.words.tokens),
        "audio": noise(frames, config.log_mel.tokens, config.log_mel.dim),
        "reference": noise(config.channels, 2, 2, 2),
        "prefix": noise(config.channels, 2, 2, 2),
        "anchor": noise(config.channels, 2, 2),
    }


def velocity_of(model: VideoRefDiT, *args: Any, **kwargs: Any) -> torch.Tensor:
    prediction: Prediction = model(*args, **kwargs)
    return prediction.velocity_BCTHW


def test_audio_starts_without_effect(config: ModelConfig) -> None:
    """A fresh network gives the same output with sound and without: its audio attention ends in zeros."""
    x = inputs(config)
    model = VideoRefDiT(config)
    torch.nn.init.normal_(model.head.weight)
    silent = velocity_of(model, x["z"], x["sigma"], x["text"])
    assert torch.equal(velocity_of(model, x["z"], x["sigma"], x["text"], audio_BTLK=x["audio"]), silent)


def test_a_sample_that_does_not_hear_equals_the_silent_network(model: VideoRefDiT, config: ModelConfig) -> None:
    """audio_keep 0 is the unconditional pass of guidance, and only for the samples that say so."""
    x = inputs(config)
    keep = torch.tensor([0.0, 1.0])
    heard = velocity_of(model, x["z"], x["sigma"], x["text"], audio_BTLK=x["audio"], audio_keep_B=keep)
    silent = velocity_of(model, x["z"], x["sigma"], x["text"])
    assert torch.allclose(heard[0], silent[0], atol=1e-5)
    assert not torch.allclose(heard[1], silent[1], atol=1e-3)


def test_sound_reaches_its_own_frame_first(config: ModelConfig, lively: Callable[[ModelConfig], VideoRefDiT]) -> None:
    """Audio attention is frame-wise: in a one-layer network, other sound at frame 1 moves frame 1 only."""
    model = lively(replace(config, layers=1))
    x = inputs(config)
    other = x["audio"].clone()
    other[:, 1] += 1
    before = velocity_of(model, x["z"], x["sigma"], x["text"], audio_BTLK=x["audio"])
    after = velocity_of(model, x["z"], x["sigma"], x["text"], audio_BTLK=other)
    changed = (before - after).abs().amax(dim=(0, 1, 3, 4))
    assert changed[1] > 1e-4
    assert changed[0] == changed[2] == 0


def test_references_do_not_depend_on_the_generation(model: VideoRefDiT, config: ModelConfig) -> None:
    """Cached reference keys and values give the same velocity as encoding them anew, whatever is generated."""
    x = inputs(config)
    cache = model.encode_reference(x["reference"])
    assert cache.tokens == 2 * 2 * 2
    for z in (x["z"], x["z"] * 3):
        for sigma in (x["sigma"], x["sigma"] / 2):
            fresh = velocity_of(model, z, sigma, x["text"], reference_BCTHW=x["reference"])
            assert torch.allclose(velocity_of(model, z, sigma, x["text"], reference=cache), fresh, atol=1e-6)
    assert not torch.allclose(velocity_of(model, x["z"], x["sigma"], x["text"]), fresh, atol=1e-3)


def test_one_person_serves_a_batch_of_passes(model: VideoRefDiT, config: ModelConfig) -> None:
    """A cache of one person, expanded, equals encoding that person once for each row."""
    x = inputs(config)
    one = x["reference"][:1]
    cache = model.encode_reference(one).expand(2)
    both = velocity_of(model, x["z"], x["sigma"], x["text"], reference_BCTHW=one.repeat(2, 1, 1, 1, 1))
    assert torch.allclose(velocity_of(model, x["z"], x["sigma"], x["text"], reference=cache), both, atol=1e-6)


def test_copies_of_a_batch_of_persons_are_made_layer_by_layer(model: VideoRefDiT, config: ModelConfig) -> None:
    """Expanded keys of two persons equal those written out for all rows, and hold no memory of their own."""
    x = inputs(config)
    cache = model.encode_reference(x["reference"])
    written_out = ReferenceCache(tuple(KeyValue(*(part.repeat(3, 1, 1, 1) for part in pair)) for pair in cache.layers))
    expanded = cache.expand(3)
    z, sigma, text = torch.cat([x["z"], x["z"] * 2, -x["z"]]), x["sigma"].repeat(3), x["text"].repeat(3, 1)
    velocity = velocity_of(model, z, sigma, text, reference=expanded)
    assert torch.equal(velocity, velocity_of(model, z, sigma, text, reference=written_out))
    assert expanded.layers is cache.layers
    assert expanded.nbytes == cache.nbytes
    with pytest.raises(ValueError, match="reference is for 3 copies of a batch, z_BCTHW is a batch of 4"):
        model(z[:4], sigma[:4], text[:4], reference=expanded)


@pytest.mark.parametrize("given", ["prefix_BCTHW", "anchor_BCHW", "both"])
def test_prefix_and_anchor_condition_without_being_denoised(
    model: VideoRefDiT, config: ModelConfig, given: str
) -> None:
    """Prefix latents and the anchor change the velocity of z, whose shape stays its own."""
    x = inputs(config)
    extra = {"prefix_BCTHW": x["prefix"], "anchor_BCHW": x["anchor"]}
    extra = extra if given == "both" else {given: extra[given]}
    conditioned = velocity_of(model, x["z"], x["sigma"], x["text"], **extra)
    assert conditioned.shape == x["z"].shape
    assert not torch.allclose(conditioned, velocity_of(model, x["z"], x["sigma"], x["text"]), atol=1e-3)


def test_words_matter(model: VideoRefDiT, config: ModelConfig) -> None:
    """Another prompt, another velocity; the same prompt in other case, the same."""
    x = inputs(config, batch=1)

    def velocity(prompt: str) -> torch.Tensor:
        words = tokenize([prompt], buckets=config.words.buckets, length=config.words.tokens)
        return velocity_of(model, x["z"], x["sigma"], words)

    assert torch.equal(velocity("A red shirt."), velocity("a red shirt"))
    assert not torch.allclose(velocity("a blue shirt"), velocity("a red shirt"), atol=1e-4)


def test_bf16_products_stay_close_to_fp32(model: VideoRefDiT, config: ModelConfig) -> None:
    """compute_dtype changes the matrix products only: the velocity stays fp32 and near."""
    x = inputs(config)
    exact = velocity_of(model, x["z"], x["sigma"], x["text"], reference_BCTHW=x["reference"])
    model.compute_dtype = torch.bfloat16
    rough = velocity_of(model, x["z"], x["sigma"], x["text"], reference_BCTHW=x["reference"])
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().mean() < 0.03 * exact.abs().mean()


def test_the_velocity_is_that_of_the_predicted_clip() -> None:
    """The head predicts x0; what comes out is (x_sigma - x0) / sigma, so with a zero head v = x_sigma / sigma."""
    config = preset("micro")
    x = inputs(config)
    velocity = velocity_of(VideoRefDiT(config), x["z"], x["sigma"], x["text"])
    assert torch.allclose(velocity, x["z"] / x["sigma"][:, None, None, None, None])


def test_spatial_patches_of_two_keep_the_shape() -> None:
    """Wan's (1, 2, 2) patch works as well as a token for each latent."""
    config = replace(preset("micro"), channels=4, patch=2, layers=1)
    model = VideoRefDiT(config)
    torch.nn.init.eye_(model.head.weight)
    z = torch.randn(1, 4, 3, 4, 4)
    words = tokenize([""], buckets=config.words.buckets, length=config.words.tokens)
    assert velocity_of(model, z, torch.tensor([0.5]), words).shape == z.shape


def test_sound_of_another_length_is_refused(model: VideoRefDiT, config: ModelConfig) -> None:
    """Audio must cover prefix and latents, and the error counts both."""
    x = inputs(config)
    with pytest.raises(ValueError, match="audio_BTLK has 3 latent frames, the video 5"):
        velocity_of(model, x["z"], x["sigma"], x["text"], audio_BTLK=x["audio"], prefix_BCTHW=x["prefix"])
    cache = model.encode_reference(x["reference"])
    with pytest.raises(ValueError, match="not both"):
        velocity_of(model, x["z"], x["sigma"], x["text"], reference=cache, reference_BCTHW=x["reference"])
