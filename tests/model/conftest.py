"""A network small enough to run hundreds of times, with no parameter left at zero."""

from collections.abc import Callable

import pytest
import torch

from helios_model.config import ModelConfig, preset
from helios_model.dit import VideoRefDiT


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def config() -> ModelConfig:
    return preset("micro")


@pytest.fixture
def lively() -> Callable[[ModelConfig], VideoRefDiT]:
    """Makes networks without zero-initialised parameters: those hide mistakes."""

    def make(config: ModelConfig) -> VideoRefDiT:
        model = VideoRefDiT(config)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return model.eval()

    return make


@pytest.fixture
def model(config: ModelConfig, lively: Callable[[ModelConfig], VideoRefDiT]) -> VideoRefDiT:
    return lively(config)
