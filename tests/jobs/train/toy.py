"""A toy stage: a small network that learns a fixed map, so that the loop, not the model, is what is tested."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from helios_jobs.curriculum.config import StageConfig
from helios_jobs.curriculum.objective import Batch, LossOutput, Preview, StageContext

WIDTH = 128
"""Wide enough that ZeRO 3 shards the matrix, and as wide at both ends, so that its gradient has full rank for Muon."""


class ToyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.matrix = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.head(self.norm(torch.tanh(self.matrix(self.embed(x)))))
        return hidden


class ToyObjective:
    """`pause` seconds a step make a run long enough to be interrupted."""

    def __init__(self, config: StageConfig, pause: float = 0.0) -> None:
        self.config = config
        self.pause = pause
        self.ctx: StageContext

    def setup(self, ctx: StageContext) -> nn.Module:
        self.ctx = ctx
        torch.manual_seed(ctx.seed)
        net = ToyNet()
        if ctx.parent is not None:
            net.load_state_dict(load_file(ctx.parent / "model.safetensors"))
        return net

    def batch(self, step: int) -> Batch:
        draws = torch.Generator().manual_seed(1000 * step + self.ctx.rank)
        x = torch.randn(self.config.batch, WIDTH, generator=draws)
        return {"x": x, "y": torch.sin(x + x.roll(1, dims=1))}

    def loss(self, module: nn.Module, batch: Batch, step: int) -> LossOutput:
        time.sleep(self.pause)  # stands for the work of a real step
        noise = 0.01 * torch.randn_like(batch["y"])  # from the global state, which a resume must restore
        loss = (module(batch["x"]) - batch["y"] - noise).square().mean()
        return LossOutput(loss, {"toy": 1.0}, tokens=batch["x"].numel())

    def export(self, state_dict: Mapping[str, Tensor], folder: Path) -> None:
        save_file({name: value.contiguous() for name, value in state_dict.items()}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"stage": self.config.stage}))

    def preview(self, folder: Path) -> Preview:
        frames = np.zeros((5, 16, 16, 3), dtype=np.uint8)
        sound = np.zeros(5 * 640, dtype=np.float32)
        return Preview({"sample": (frames, sound)}, np.zeros((16, 32, 3), dtype=np.uint8), {"lip_sync": 0.5})

    def parameter_groups(self, module: nn.Module, lr: float) -> list[dict[str, Any]]:
        if self.config.optimizer == "adamw":
            return [{"params": list(module.parameters()), "lr": lr, "use_muon": False, "weight_decay": 0.0}]
        matrices = [value for name, value in module.named_parameters() if name == "matrix.weight"]
        others = [value for name, value in module.named_parameters() if name != "matrix.weight"]
        return [
            {"params": matrices, "lr": lr, "use_muon": True, "weight_decay": 0.0},
            {"params": others, "lr": self.config.adam_lr, "use_muon": False, "weight_decay": 0.0},
        ]
