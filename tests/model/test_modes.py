from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from helios_model import modes
from helios_model.config import ModelConfig, MotionConfig
from helios_model.dit import VideoRefDiT
from helios_model.modes import MODES, Mode
from helios_model.sampler import (
    Conditions,
    Guidance,
    Sample,
    euler_step,
    keyed_noise,
    make_velocity,
    sample,
    schedule,
)

EACH_MODE = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


@pytest.fixture
def everything(config: ModelConfig, lively: Callable[[ModelConfig], VideoRefDiT]) -> VideoRefDiT:
    """A small network that has every input."""
    return lively(replace(config, motion=MotionConfig(dim=5)))


def conditions(model: VideoRefDiT, names: frozenset[str], frames: int) -> Conditions:
    """Just these inputs, random."""
    config, draw = model.config, torch.Generator().manual_seed(2)

    def latents(*shape: int) -> torch.Tensor:
        return torch.randn(1, config.channels, *shape, 2, 2, generator=draw)

    heard = frames + 2 * ("prefix" in names)
    given: dict[str, Any] = {
        "audio": {"audio_BTLK": torch.randn(1, heard, config.log_mel.tokens, config.log_mel.dim, generator=draw)},
        "prefix": {"prefix_BCTHW": latents(2)},
        "anchor": {"anchor_BCHW": latents()},
        "anchor_keep": {"anchor_keep_BK": torch.tensor([[0, 3]])},
        "motion": {"motion_BTM": torch.randn(1, frames, 5, generator=draw)},
        "reference": {"reference": model.encode_reference(latents(2))},
        "draft": {"draft_BCTHW": latents(frames)},
    }
    text = torch.randint(1024, (2, 1, config.words.tokens), generator=draw)
    chosen = {key: value for name in names - {"text"} for key, value in given[name].items()}
    return Conditions(text=text[0], silent_text=text[1], **chosen)


def variants(mode: Mode) -> list[frozenset[str]]:
    """The least that a mode needs, all that it may have, and both of a later chunk."""
    least, most = mode.needs, mode.needs | mode.allows
    later = [names | modes.CONTINUATION for names in (least, most - {"anchor_keep"})] if mode.continues else []
    return [least, most, *later]


@EACH_MODE
@torch.no_grad()
def test_every_mode_runs_with_its_least_and_with_all_inputs(mode: Mode, everything: VideoRefDiT) -> None:
    """First and later chunks, guided, in finite latents of the right shape; every further input changes them."""
    frames, made = 1 if mode is modes.IMAGE_ENGINE else 3, list[torch.Tensor]()
    for names in dict.fromkeys(variants(mode)):
        given = conditions(everything, names, frames)
        assert given.names() == names
        modes.check(mode, given.names())
        velocity = make_velocity(everything, given, Guidance(text=5.0, audio=1.8))
        shape = (1, everything.config.channels, frames, 2, 2)
        if given.draft_BCTHW is None:
            latents = sample(velocity, shape, schedule(2, 3.0), seed=0).latents_BCTHW
        else:
            noisy = 0.4 * given.draft_BCTHW + 0.6 * keyed_noise(shape, seed=0, chunk=0, step=0)
            latents = euler_step(noisy, velocity(Sample(noisy), 0.6).velocity_BCTHW, 0.6, 0.0)
        assert latents.shape == shape
        assert latents.isfinite().all()
        assert all((latents - other).abs().max() > 1e-4 for other in made)
        made.append(latents)


@EACH_MODE
def test_a_mode_refuses_to_go_without_what_it_needs(mode: Mode) -> None:
    """Each input that is left out is named."""
    for names in variants(mode):
        for missing in mode.needs | (modes.CONTINUATION - {"prefix"} if "prefix" in names else frozenset()):
            with pytest.raises(ValueError, match=rf"mode {mode.name} needs .*: missing {missing}$"):
                modes.check(mode, names - {missing, "anchor_keep"})


@EACH_MODE
def test_a_mode_refuses_what_it_was_not_trained_with(mode: Mode) -> None:
    """Each other input that there is, is named as superfluous; a prefix only where there are later chunks."""
    for foreign in set(modes.INPUTS) - mode.needs - mode.allows - ({"prefix"} if mode.continues else set()):
        with pytest.raises(ValueError, match=rf"mode {mode.name} .*superfluous .*{foreign}"):
            modes.check(mode, mode.needs | {foreign})


def test_tokens_of_an_anchor_need_the_anchor() -> None:
    """A selection alone is an error that names what it selects from."""
    with pytest.raises(ValueError, match=r"missing anchor$"):
        modes.check(modes.PERSONALITY, modes.PERSONALITY.needs | {"anchor_keep"})


def test_modes_know_only_inputs_that_there_are() -> None:
    """Names of needs and allowances are those of the conditions, and none is both."""
    for mode in MODES.values():
        assert mode.needs | mode.allows <= set(modes.INPUTS)
        assert not mode.needs & mode.allows
