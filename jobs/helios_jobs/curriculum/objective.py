"""What the training loop knows of a stage: an Objective makes the module, the batches, the loss and the product."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from helios_jobs.curriculum.config import StageConfig

Batch = dict[str, Tensor]
Frames = NDArray[np.uint8]
Audio = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """Where a stage runs.

    Attributes:
        parent: bundle folder of the stage before; None for the first.
        cache: folder that all ranks and stages of a cell share; rendered data is built there once, under a lock.
    """

    parent: Path | None
    cache: Path
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True, slots=True)
class LossOutput:
    """Attributes: loss: scalar to minimise; tokens: generation and reference tokens of this rank's batch."""

    loss: Tensor
    metrics: dict[str, float]
    tokens: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What a person looks at after a stage.

    Attributes:
        videos: uint8 [F, H, W, 3] and float32 [n] 16 kHz audio (None: silent), by name.
        contact_sheet: uint8 [H, W, 3].
    """

    videos: dict[str, tuple[Frames, Audio | None]]
    contact_sheet: Frames
    metrics: dict[str, float]


class Objective(Protocol):
    config: StageConfig

    def setup(self, ctx: StageContext) -> nn.Module:
        """Prepare the data and return the trainable module; frozen companions stay inside the objective.

        Raises:
            helios.errors.InputError: the parent bundle is missing, of another preset, or damaged.
        """
        ...

    def batch(self, step: int) -> Batch:
        """The batch of this rank: (seed, step, rank) decide it, so that a resumed run equals an unbroken one."""
        ...

    def loss(self, module: nn.Module, batch: Batch, step: int) -> LossOutput:
        """`module` is what `setup` returned or an engine around it; it is called exactly once."""
        ...

    def export(self, state_dict: Mapping[str, Tensor], folder: Path) -> None:
        """Write the bundle of this stage from the module's full fp32 `state_dict`, replacing what is there."""
        ...

    def preview(self, folder: Path) -> Preview:
        """Generate from held-out material with the bundle in `folder`."""
        ...

    def parameter_groups(self, module: nn.Module, lr: float) -> list[dict[str, Any]]:
        """Muon's matrices first, then the rest: dicts with `params`, `lr`, `use_muon`, `weight_decay`.

        Every parameter is also tagged with `use_muon`, which is what DeepSpeed's Muon reads.
        """
        ...


def build_objective(config: StageConfig) -> Objective:
    """The objective of `config.stage`; its module is imported only now."""
    match config.stage:
        case "t2v":
            from helios_jobs.curriculum.t2v import TextToVideo

            return TextToVideo(config)
        case "a2v":
            from helios_jobs.curriculum.a2v import AudioToVideo

            return AudioToVideo(config)
        case "personality":
            from helios_jobs.curriculum.personality import Personality

            return Personality(config)
        case "distill":
            from helios_jobs.curriculum.distill import Distillation

            return Distillation(config)
        case "rlhf":
            from helios_jobs.curriculum.rlhf import PreferenceTuning

            return PreferenceTuning(config)
