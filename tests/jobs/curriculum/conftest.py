"""Stages small enough for a test: 16 px people, a network of two narrow layers, one bank for the whole folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch

from helios_jobs.curriculum import rlhf
from helios_jobs.curriculum.config import StageConfig
from helios_jobs.curriculum.objective import Objective, StageContext, build_objective

DATA = {"identities": 6, "codec_clips": 6}


class MakeStage(Protocol):
    def __call__(self, stage: str, *, rank: int = 0, parent: Path | None = None, **options: Any) -> Objective: ...


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def stage_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


class Brightness:
    """An identity reward that any size of picture has: how close the mean colours are."""

    def similarity(self, frames: np.ndarray, others: np.ndarray) -> np.ndarray:
        difference = frames.mean((1, 2, 3)) - others.mean((1, 2, 3))
        return np.asarray(1 - np.abs(difference).mean(-1) / 255, np.float32)


@pytest.fixture
def config_of() -> Callable[..., StageConfig]:
    def make(stage: str, **options: Any) -> StageConfig:
        merged = {
            "stage": stage,
            "preset": "micro",
            "steps": 20,
            "batch": 3,
            "data": DATA,
            "precision": "fp32",
        } | options
        return StageConfig.model_validate(merged)

    return make


@pytest.fixture
def make_stage(stage_cache: Path, config_of: Callable[..., StageConfig], monkeypatch: pytest.MonkeyPatch) -> MakeStage:
    """Builds an objective; `module` is what its setup returned."""

    class Probes:
        reward = Brightness()

    monkeypatch.setattr(rlhf, "load_probes", lambda _: Probes())

    def make(stage: str, *, rank: int = 0, parent: Path | None = None, **options: Any) -> Objective:
        objective = build_objective(config_of(stage, **options))
        ctx = StageContext(parent=parent, cache=stage_cache, rank=rank, world_size=2)
        objective.module = objective.setup(ctx)  # type: ignore[attr-defined]  # kept for the tests
        return objective

    return make
