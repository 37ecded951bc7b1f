"""Refusals of inputs that do not fit each other."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from helios_model import inputs
from helios_model.attention import KeyValue
from helios_model.config import PRESETS, TextFeatures
from helios_model.dit import ReferenceCache, VideoRefDiT
from helios_model.rope import rotation

CONFIG = replace(PRESETS["micro"], text=TextFeatures(dim=8, tokens=4))


def test_a_prompt_of_no_tokens_is_refused() -> None:
    """Attention over nothing has no value."""
    with pytest.raises(ValueError, match=r"at least 1 token, not \[2, 0, 8\]"):
        inputs.check_noise_and_text(torch.zeros(2, 16, 1, 4, 4), torch.ones(2), torch.zeros(2, 0, 8), CONFIG)


@pytest.mark.parametrize(("kept", "came"), [([1, 1], "another order or twice"), ([1, 4], "1 to 4")])
def test_kept_indices_that_came_are_named(kept: list[int], came: str) -> None:
    """The message says what is wrong with them, not all thousands of them."""
    with pytest.raises(ValueError, match=f"0 to 3, each once, not .*{came}"):
        inputs.check_kept("keep_BK", torch.tensor([kept]), 1, 4)


@pytest.mark.parametrize("bad", [torch.zeros(1, 3, 1, CONFIG.head_dim), torch.zeros(1, 3, 2, CONFIG.head_dim).half()])
def test_every_layer_of_a_reference_is_looked_at(bad: torch.Tensor) -> None:
    """A last layer of other heads or dtype than the first is named."""
    good = torch.zeros(1, 3, CONFIG.heads, CONFIG.head_dim)
    last = CONFIG.layers - 1
    cache = ReferenceCache((*[KeyValue(good, good)] * last, KeyValue(good, bad)))
    with pytest.raises(ValueError, match=f"reference layer {last} is "):
        inputs.check_reference(cache, 1, CONFIG)


def test_a_reference_of_another_share_of_the_heads_is_named() -> None:
    """Encoded under Ulysses and used without, or over other ranks: said here, not by a product of matrices."""
    half = torch.zeros(1, 3, CONFIG.heads // 2, CONFIG.head_dim)
    cache = ReferenceCache((KeyValue(half, half),) * CONFIG.layers)
    with pytest.raises(ValueError, match=rf"expected \[1, tokens, {CONFIG.heads}, {CONFIG.head_dim}\]"):
        inputs.check_reference(cache, 1, CONFIG)
    inputs.check_reference(cache, 1, CONFIG, 2)
    with pytest.raises(ValueError, match="over 2 ranks"):
        inputs.check_reference(cache, 1, replace(CONFIG, heads=2 * CONFIG.heads, dim=2 * CONFIG.dim), 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"reference_keep_BK": torch.zeros(2, 3)}, "reference_keep_BK came .* reference_BCTHW is not given"),
        (
            {"reference_audio_BTLK": torch.zeros(2, 3, 6, 8)},
            "reference_audio_BTLK came .* reference_BCTHW is not given",
        ),
        ({"motion_sigma_B": torch.ones(2)}, "motion_sigma_B came .* motion_BTM is not given"),
        ({"audio_keep_B": torch.ones(3)}, r"audio_keep_B is \[2\].*not \[3\]"),
    ],
)
def test_options_come_with_what_they_qualify(given: dict[str, Any], message: str) -> None:
    """The network refuses an option without its input, or of another length than the batch."""
    config = PRESETS["micro"]
    z_BCTHW = torch.zeros(2, config.channels, 1, 4, 4)
    with pytest.raises(ValueError, match=message):
        VideoRefDiT(config)(z_BCTHW, torch.ones(2), torch.zeros(2, 32, dtype=torch.int64), **given)


def test_rotations_do_not_follow_the_default_device() -> None:
    """Angles are computed on the CPU under any default device."""
    positions_BN3 = torch.zeros(1, 2, 3, dtype=torch.int64)
    with torch.device("meta"):
        assert rotation(positions_BN3, 12).cos_BND.device.type == "cpu"
