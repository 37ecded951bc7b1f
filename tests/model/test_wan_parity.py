from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from helios_model.config import MotionConfig, SpeechFeatures
from helios_model.dit import VideoRefDiT
from helios_model.wan_layout import wan_keys
from helios_model.wan_weights import load_wan

Wan: Any = WanTransformer3DModel
"""Without types: those of diffusers do not say that it is a module."""
TOLERANCE = 1e-5
SIZES = {
    # 12 and 20 are no multiples of each other's rotary shares: 20 // 6 leaves 8, 6, 6 dimensions for time, row, column.
    "head of 12": {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "ffn_dim": 40},
    "head of 20": {"num_attention_heads": 3, "attention_head_dim": 20, "num_layers": 3, "ffn_dim": 112},
}


def _random_wan(size: str) -> Any:
    """Weights under which every parameter counts: no zero bias, no norm at one, no gate near zero."""
    model = Wan(**SIZES[size], in_channels=4, out_channels=4, text_dim=24, freq_dim=32)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2 and "scale_shift_table" not in name:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.4 * noise)
            else:
                parameter.copy_(0.4 * noise)
    return model.eval()


@pytest.fixture(scope="module", params=SIZES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("wan")
    theirs = _random_wan(request.param)
    theirs.save_pretrained(folder)
    return theirs, folder


def _inputs(frames: int, height: int, width: int, tokens: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(frames * 1000 + height * 10 + width)
    z_BCTHW = torch.randn(2, 4, frames, height, width, generator=generator)
    return z_BCTHW, torch.randn(2, tokens, 24, generator=generator)


@torch.no_grad()
def _gap(theirs: Any, ours: VideoRefDiT, z: Tensor, sigma_B: Tensor, text: Tensor) -> float:
    expected = theirs(z, 1000 * sigma_B, text, return_dict=False)[0]
    assert float(expected.std()) > 0.3, "an output near zero would agree with anything"
    return float((ours(z, sigma_B, text).velocity_BCTHW - expected).abs().max())


@pytest.mark.parametrize("shape", [(1, 6, 10), (2, 6, 6), (5, 10, 14), (3, 2, 2)], ids=str)
def test_without_optional_inputs_the_network_is_wan(pair: tuple[Any, Path], shape: tuple[int, int, int]) -> None:
    """Odd and even token grids and frame counts, two samples at different noise levels, the ends of sigma included."""
    theirs, folder = pair
    ours = load_wan(folder)
    z_BCTHW, text_BLK = _inputs(*shape)
    for levels in ([1.0, 0.0], [0.9371, 0.5], [0.013, 0.25]):
        assert _gap(theirs, ours, z_BCTHW, torch.tensor(levels), text_BLK) <= TOLERANCE


def test_a_prompt_of_512_tokens_reads_as_wan_reads_it(pair: tuple[Any, Path]) -> None:
    """Text padded with zeros to Wan's length is attended to as it is, without a mask."""
    theirs, folder = pair
    z_BCTHW, text_BLK = _inputs(2, 6, 10, tokens=512)
    text_BLK[:, 9:] = 0
    assert _gap(theirs, load_wan(folder), z_BCTHW, torch.tensor([0.7, 0.3]), text_BLK) <= TOLERANCE


def test_new_inputs_that_are_absent_or_heard_for_the_first_time_change_nothing(
    pair: tuple[Any, Path],
) -> None:
    """Wan with sound and motion added is still Wan, and sound leaves it so until it is trained."""
    theirs, folder = pair
    ours = load_wan(folder, audio=SpeechFeatures(dim=10, tokens=3), motion=MotionConfig(dim=5))
    z_BCTHW, text_BLK = _inputs(2, 6, 10)
    sigma_B = torch.tensor([0.8, 0.2])
    assert _gap(theirs, ours, z_BCTHW, sigma_B, text_BLK) <= TOLERANCE
    with torch.no_grad():
        silent = ours(z_BCTHW, sigma_B, text_BLK).velocity_BCTHW
        heard = ours(z_BCTHW, sigma_B, text_BLK, audio_BTLK=torch.randn(2, 2, 3, 10)).velocity_BCTHW
        moved = ours(z_BCTHW, sigma_B, text_BLK, motion_BTM=torch.randn(2, 2, 5)).motion_BTM
    assert torch.equal(silent, heard)
    assert torch.count_nonzero(moved) == 0


@torch.no_grad()
def test_every_parameter_of_wan_matters_to_the_comparison(pair: tuple[Any, Path]) -> None:
    """One number changed in any one parameter shows in the output: parity would notice what is mapped wrongly."""
    _, folder = pair
    ours = load_wan(folder)
    z_BCTHW, text_BLK = _inputs(2, 6, 10)
    sigma_B = torch.tensor([0.8, 0.2])
    before = ours(z_BCTHW, sigma_B, text_BLK).velocity_BCTHW
    parameters = dict(ours.named_parameters())
    unseen = []
    for name in wan_keys(ours.config.layers):
        parameter = parameters[name]
        kept = parameter.clone()
        parameter.view(-1)[0] += 1
        gap = float((ours(z_BCTHW, sigma_B, text_BLK).velocity_BCTHW - before).abs().max())
        parameter.copy_(kept)
        if gap <= 10 * TOLERANCE:
            unseen.append((name, gap))
    assert unseen == []
