"""Stage 4, distillation: first the guidance, then the number of steps.

Phase (a) regresses the guided combination v0 + w_t (v_c0 - v0) + w_a (v_ca - v_c0) of the frozen parent at noised
data (Avatar V), so that three passes a step become one. Phase (b) is progressive distillation (Salimans and Ho,
2022) on the student's own schedule: from a noised clip at one of its levels the frozen, guided parent takes two half
steps to the next level, and the student regresses the straight velocity between the two ends. It needs no critic and no
rollout, so it fits a few minutes on a CPU, and its target depends on the step alone, so a resumed run equals an
unbroken one; distribution matching (DMD) is what a longer run would use.
"""

import copy

import torch
from torch import Tensor, nn

from helios_jobs.curriculum.config import StageConfig
from helios_jobs.curriculum.objective import Batch, LossOutput
from helios_jobs.curriculum.personality import Personality
from helios_jobs.curriculum.stage import count_tokens, predict
from helios_model.dit import VideoRefDiT
from helios_model.pipeline import Sampling
from helios_model.sampler import Conditions, guided_velocity, schedule

_HALVES = 2


class Distillation(Personality):
    def __init__(self, config: StageConfig) -> None:
        super().__init__(config)
        options = config.distill
        self.sampling = Sampling(
            steps=options.student_steps, shift=config.shift, reference_latents=self.sampling.reference_latents
        )
        self.levels = torch.tensor(schedule(options.student_steps, config.shift), dtype=torch.float32)
        self.teacher: VideoRefDiT

    def prepare(self, model: VideoRefDiT) -> None:
        self.teacher = copy.deepcopy(model).eval().requires_grad_(requires_grad=False).to(self.ctx.device)

    def few_step(self, step: int) -> bool:
        return step >= self.config.distill.guided * self.config.steps

    def batch(self, step: int) -> Batch:
        own = self.draws(step)
        batch = self.reference_batch(step, self.draws(step, shared=True), own)
        batch["audio_keep"] = torch.ones_like(batch["audio_keep"])
        if self.few_step(step):
            interval = torch.randint(len(self.levels) - 1, (self.config.batch,), generator=own)
            batch |= {"sigma": self.levels[interval], "target": self.levels[interval + 1]}
        return self.placed(batch)

    def loss(self, module: nn.Module, batch: Batch, step: int) -> LossOutput:
        sigma = batch["sigma"][:, None, None, None, None]
        batch["z"] = (1 - sigma) * batch["clean"] + sigma * batch["noise"]
        wanted = self._rollout_velocity(batch) if self.few_step(step) else self._guided(batch)
        loss = (predict(module, batch) - wanted).square().mean()
        name = "few_step" if self.few_step(step) else "guidance"
        return LossOutput(loss, {name: float(loss.detach())}, count_tokens(batch))

    @torch.no_grad()
    def _guided(self, batch: Batch) -> Tensor:
        return self._velocity(batch["z"], batch["sigma"], self._conditions(batch))

    @torch.no_grad()
    def _rollout_velocity(self, batch: Batch) -> Tensor:
        """Mean velocity of the guided teacher's path from `sigma` to `target`, in two Euler steps."""
        given, x, start, stop = self._conditions(batch), batch["z"], batch["sigma"], batch["target"]
        span = (start - stop) / _HALVES
        total = torch.zeros_like(x)
        for index in range(_HALVES):
            velocity = self._velocity(x, start - index * span, given)
            x = x - span[:, None, None, None, None] * velocity
            total += velocity
        return total / _HALVES

    def _velocity(self, x: Tensor, sigma_B: Tensor, given: Conditions) -> Tensor:
        return guided_velocity(self.teacher, x, sigma_B, given, self.guidance).velocity_BCTHW

    def _conditions(self, batch: Batch) -> Conditions:
        return Conditions(
            text=batch["text"],
            silent_text=self.silence(batch["text"]),
            audio_BTLK=batch["audio"],
            prefix_BCTHW=batch.get("prefix"),
            anchor_BCHW=batch.get("anchor"),
            reference=self.teacher.encode_reference(batch["reference"]),
        )
