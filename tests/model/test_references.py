"""Reference stream, token selection, prefix, anchor and motion of the whole network."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from helios_model import attention, blocks
from helios_model.attention import KeyValue
from helios_model.config import ModelConfig, MotionConfig, SpeechFeatures, TextFeatures, preset
from helios_model.dit import ReferenceCache, VideoRefDiT

Lively = Callable[[ModelConfig], VideoRefDiT]


@pytest.fixture
def config() -> ModelConfig:
    """Wan's shape in small, with every input that Avatar V has."""
    small = replace(preset("wan-1.3b"), channels=4, dim=36, heads=2, layers=3, ffn=40, motion=MotionConfig(dim=6))
    return replace(small, text=TextFeatures(dim=12, tokens=5), audio=SpeechFeatures(dim=10, tokens=3))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def given(batch: int = 2, frames: int = 3) -> dict[str, Any]:
    return {
        "z_BCTHW": draw(batch, 4, frames, 4, 6),
        "sigma_B": torch.linspace(0.3, 0.9, batch),
        "text": draw(batch, 5, 12, seed=1),
        "audio_BTLK": draw(batch, frames, 3, 10, seed=2),
    }


def reference_of(batch: int = 2) -> tuple[Tensor, Tensor]:
    return draw(batch, 4, 2, 4, 6, seed=3), draw(batch, 2, 3, 10, seed=4)


def test_references_are_the_same_to_the_bit_whatever_is_generated(config: ModelConfig, lively: Lively) -> None:
    """Keys and values of r depend on r and its own sound alone, and on nothing that the generation is given."""
    model = lively(config)
    latents, sound = reference_of()
    first = model.encode_reference(latents, audio_BTLK=sound)
    model(**given(), reference=first, anchor_BCHW=draw(2, 4, 4, 6))
    again = model.encode_reference(latents, audio_BTLK=sound)
    for one, other in zip(first.layers, again.layers, strict=True):
        assert torch.equal(one.k_BMHD, other.k_BMHD)
        assert torch.equal(one.v_BMHD, other.v_BMHD)
    silent = model.encode_reference(latents)
    assert torch.equal(silent.layers[0].k_BMHD, first.layers[0].k_BMHD)
    assert not torch.allclose(silent.layers[-1].k_BMHD, first.layers[-1].k_BMHD, atol=1e-3)


def test_a_dropped_token_is_as_good_as_masked(config: ModelConfig, lively: Lively) -> None:
    """Kept tokens have the keys that they have where the others are hidden from them, at their own positions."""
    model = lively(config)
    latents, sound = reference_of()
    keep = torch.tensor([[0, 2, 3, 8, 11], [1, 2, 6, 7, 9]])
    dropped = model.encode_reference(latents, audio_BTLK=sound, keep_BK=keep)
    assert dropped.tokens == 5

    hidden = _masked_reference(model, latents, sound, keep)
    for ours, whole in zip(dropped.layers, hidden, strict=True):
        for mine, theirs in zip(ours, whole, strict=True):
            kept = theirs.gather(1, keep[:, :, None, None].expand_as(mine))
            assert torch.allclose(mine, kept, atol=1e-5)


def _masked_reference(model: VideoRefDiT, latents: Tensor, sound: Tensor, keep: Tensor) -> list[KeyValue]:
    """Keys and values of all tokens where only the kept ones are seen: the dense, slow way."""
    seen = torch.zeros(latents.shape[0], 12, dtype=torch.bool).scatter(1, keep, value=True)

    def attend_masked(q: Tensor, pair: KeyValue) -> Tensor:
        if pair.k_BMHD.shape[1] != 12:
            return original(q, pair)
        q, k, v = (x.transpose(1, 2) for x in (q, *pair))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None])
        return out.transpose(1, 2)

    original = attention.attend
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "attend", attend_masked)
        return list(model.encode_reference(latents, audio_BTLK=sound).layers)


def test_keeping_all_tokens_changes_nothing(config: ModelConfig, lively: Lively) -> None:
    """A selection of everything equals no selection, for references and for the anchor."""
    model = lively(config)
    latents, sound = reference_of()
    whole = model.encode_reference(latents, audio_BTLK=sound)
    chosen = model.encode_reference(latents, audio_BTLK=sound, keep_BK=torch.arange(12).expand(2, -1))
    for one, other in zip(whole.layers, chosen.layers, strict=True):
        assert torch.allclose(one.v_BMHD, other.v_BMHD, atol=1e-6)
    anchor = draw(2, 4, 4, 6, seed=5)
    plain = model(**given(), anchor_BCHW=anchor)
    kept = model(**given(), anchor_BCHW=anchor, anchor_keep_BK=torch.arange(6).expand(2, -1))
    assert torch.allclose(plain.velocity_BCTHW, kept.velocity_BCTHW, atol=1e-5)
    fewer = model(**given(), anchor_BCHW=anchor, anchor_keep_BK=torch.tensor([[0, 4]] * 2))
    assert not torch.allclose(plain.velocity_BCTHW, fewer.velocity_BCTHW, atol=1e-3)


def test_dropped_anchor_tokens_are_not_looked_at(config: ModelConfig, lively: Lively) -> None:
    """What the anchor shows under its dropped tokens makes no difference."""
    model = lively(config)
    anchor = draw(2, 4, 4, 6, seed=5)
    other = anchor.clone()
    other[:, :, 2:, :2] += 1  # the token in row 1, column 0
    keep = torch.tensor([[0, 1, 2, 4, 5]] * 2)
    one, two = (model(**given(), anchor_BCHW=image, anchor_keep_BK=keep) for image in (anchor, other))
    assert torch.equal(one.velocity_BCTHW, two.velocity_BCTHW)


def test_motion_is_predicted_and_conditions(config: ModelConfig, lively: Lively) -> None:
    """Motion vectors get a velocity of their own, steer the picture, and have a noise level of their own."""
    model = lively(config)
    motion = draw(2, 3, 6, seed=6)
    with_motion = model(**given(), motion_BTM=motion)
    assert with_motion.motion_BTM is not None
    assert with_motion.motion_BTM.shape == motion.shape
    without = model(**given())
    assert without.motion_BTM is None
    assert not torch.allclose(with_motion.velocity_BCTHW, without.velocity_BCTHW, atol=1e-3)
    imposed = model(**given(), motion_BTM=motion, motion_sigma_B=torch.zeros(2))
    assert not torch.allclose(imposed.velocity_BCTHW, with_motion.velocity_BCTHW, atol=1e-3)


def test_sound_moves_the_motion_of_its_own_frame(config: ModelConfig, lively: Lively) -> None:
    """In a one-layer network other sound at frame 1 moves the motion of frame 1 only."""
    model = lively(replace(config, layers=1))
    motion, x = draw(2, 3, 6, seed=6), given()
    before = model(**x, motion_BTM=motion).motion_BTM
    x["audio_BTLK"] = x["audio_BTLK"].clone()
    x["audio_BTLK"][:, 1] += 1
    changed = (model(**x, motion_BTM=motion).motion_BTM - before).abs().amax(dim=(0, 2))
    assert changed[1] > 1e-4
    assert changed[0] == changed[2] == 0


def test_new_inputs_start_without_effect_on_the_picture(config: ModelConfig) -> None:
    """Sound and injected motion of a freshly extended network end in zeros."""
    model = VideoRefDiT(config)
    torch.nn.init.normal_(model.head.weight)
    x = given()
    sound = x.pop("audio_BTLK")
    silent = model(**x).velocity_BCTHW
    assert torch.equal(model(**x, audio_BTLK=sound).velocity_BCTHW, silent)
    assert torch.equal(model.motion_injection(draw(1, 3, 36)), torch.zeros(1, 3, 36))


def test_a_cache_tells_its_size(config: ModelConfig, lively: Lively) -> None:
    """Two fp32 tensors of 12 tokens and 36 numbers a layer, for each of two people."""
    cache = lively(config).encode_reference(reference_of()[0])
    assert cache.nbytes == 3 * 2 * 2 * 12 * 36 * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z_BCTHW": draw(2, 5, 3, 4, 6)}, r"z_BCTHW has 5 channels, this network \(wan-1.3b\) 4"),
        ({"z_BCTHW": draw(2, 4, 3, 4, 5)}, r"z_BCTHW is 4 x 5 latents, which are no whole patches of 2 x 2"),
        ({"z_BCTHW": draw(2, 4, 3, 4)}, r"z_BCTHW is floating-point \[B, C, T, H, W\], not .* \[2, 4, 3, 4\]"),
        ({"z_BCTHW": draw(2, 4, 129, 2, 2)}, "z_BCTHW has 129 latent frames, rotary positions reach for 128"),
        ({"sigma_B": torch.ones(3)}, r"sigma_B is \[2\], one for each of z_BCTHW, not \[3\]"),
        ({"text": draw(2, 5, 11)}, r"text is features \[2, tokens, 12\], not torch.float32 \[2, 5, 11\]"),
        ({"audio_BTLK": draw(2, 4, 3, 10)}, "audio_BTLK has 4 latent frames, the video 3"),
        ({"audio_BTLK": draw(2, 3, 3, 9)}, r"audio_BTLK is \[2, 3, 3, 9\], expected \[2, 3, 3, 10\]"),
        ({"prefix_BCTHW": draw(2, 4, 2, 4, 4)}, r"prefix_BCTHW is \[2, 4, 2, 4, 4\], z_BCTHW \[2, 4, 3, 4, 6\]"),
        ({"prefix_BCTHW": draw(2, 4, 3, 4, 6)}, "prefix_BCTHW has 3 latent frames, a prefix 1 to 2"),
        ({"anchor_BCHW": draw(2, 4, 4, 4)}, r"anchor_BCHW is \[2, 4, 4, 4\], expected \[2, 4, 4, 6\]"),
        ({"anchor_keep_BK": torch.zeros(2, 1, dtype=torch.int64)}, "anchor_BCHW is not given"),
        ({"motion_BTM": draw(2, 3, 7)}, r"motion_BTM is \[2, 3, 7\], expected \[2, 3, 6\]"),
        ({"reference": ReferenceCache(())}, r"reference holds 0 layers, this network \(wan-1.3b\) 3"),
        (
            {"reference_BCTHW": draw(2, 4, 2, 4, 6), "reference_keep_BK": torch.tensor([[3, 2], [0, 1]])},
            "reference keep_BK holds ascending indices of 0 to 11, each once, not indices in another order or twice",
        ),
        ({"reference_BCTHW": draw(2, 4, 897, 2, 2)}, "reference_BCTHW has 897 latent frames, .* reach for 896"),
    ],
)
def test_what_does_not_fit_is_named(
    config: ModelConfig, lively: Lively, change: dict[str, Tensor], message: str
) -> None:
    """An input of a wrong shape is refused by name, with what came and what was expected."""
    with pytest.raises(ValueError, match=message):
        lively(config)(**(given() | change))
