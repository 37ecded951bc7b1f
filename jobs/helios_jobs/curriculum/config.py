"""What a researcher may set on a stage: `spec.config` of its job. No torch here: `helios validate` uses it."""

import math
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

StageName = Literal["t2v", "a2v", "personality", "distill", "rlhf"]
STAGES: tuple[StageName, ...] = get_args(StageName)


_SECTIONS: dict[str, tuple[StageName, ...]] = {
    "personality": ("personality", "distill", "rlhf"),
    "distill": ("distill",),
    "rlhf": ("rlhf",),
}
"""Stages that read a section; the later ones draw references as the personality stage does."""


class Section(BaseModel):
    """A mapping in the YAML; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Section):
    """The bank of pre-rendered procedural talking heads; stages with equal settings share one bank."""

    identities: int = Field(default=1200, ge=4)
    """Training identities; held-out ones have other seeds."""
    scenes: int = Field(default=2, ge=2)
    """Clips of an identity, each in another scene; cross-scene pairs need two."""
    frames: int = Field(default=21, ge=17)
    """Pixel frames of a clip: 4 (T - 1) + 1 for T latent frames."""
    seed: int = 1
    codec_clips: int = Field(default=160, ge=2)
    """Clips that the linear codec is fitted on."""

    @model_validator(mode="after")
    def _causal_length(self) -> Self:
        if (self.frames - 1) % 4:
            raise ValueError(f"frames is 4 (T - 1) + 1 for T latent frames, not {self.frames}")
        return self


class PersonalityOptions(Section):
    same_scene: float = Field(default=0.25, ge=0, le=1)
    """Share of the steps that first copy from references of the target's own scene; the rest is cross-scene."""
    reference_latents: tuple[int, ...] = (1, 2, 4)
    """Numbers of reference latent frames to draw from."""


class DistillOptions(Section):
    guided: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps in phase (a), guidance distillation; the rest is phase (b), the few-step student."""
    text_guidance: float = Field(default=1.0, ge=0)
    """Above 1 the scene of the prompt pushes against the person of the reference."""
    audio_guidance: float = Field(default=2.5, ge=0)
    student_steps: int = Field(default=4, ge=1)
    """Denoising steps of the exported student."""


class RlhfOptions(Section):
    beta: float = Field(default=500.0, gt=0)
    """How far one pair may move the model: multiplies differences of mean squared error over the foreground."""
    mse_weight: float = Field(default=1.0, ge=0)
    margin: float = Field(default=0.02, ge=0)
    """Least difference of the two rewards for a pair to count."""
    pairs: int = Field(default=64, ge=2)
    """Conditions that pairs are sampled for, over all ranks."""
    candidates: int = Field(default=4, ge=2)
    """Samples a condition; the best and the worst make the pair."""


class StageConfig(Section):
    """One stage of the curriculum.

    The learning rate of a step is `lr * lr_scale(step)`: linear warm-up, constant, then linear decay to a tenth.
    """

    stage: StageName
    preset: str = "tiny"
    steps: int = Field(ge=1)
    batch: int = Field(default=8, ge=1)
    """Samples a worker a step."""
    lr: float = Field(default=0.01, gt=0)
    """Of Muon's matrices (spectral norm an update), or of everything with `optimizer: adamw`."""
    adam_lr: float = Field(default=1.5e-3, gt=0)
    """Of what Muon leaves to AdamW: embedders, modulation, heads, norms, biases."""
    optimizer: Literal["muon", "adamw"] = "muon"
    weight_decay: float = Field(default=0.0, ge=0)
    grad_clip: float = Field(default=1.0, ge=0)
    """Largest global gradient norm before the optimizer sees it; 0 is none. Muon is scale-free and needs none."""
    warmup: int = Field(default=10, ge=0)
    """Steps of linear warm-up."""
    decay: float = Field(default=0.4, ge=0, le=1)
    """Share of the steps at the end in which the learning rate falls linearly to a tenth."""
    zero: Literal[0, 2, 3] = 2
    """Stage of ZeRO. A checkpoint of 2 or 3 loads into as many workers as wrote it; of 0 into any number."""
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the matrix products; `auto` is bf16 where the device has instructions for it. Weights stay fp32."""
    sigma_mean: float = 0.0
    sigma_std: float = Field(default=1.0, gt=0)
    """sigma = shift(sigmoid(N(mean, std)))."""
    shift: float = Field(default=2.0, gt=0)
    """k of s' = k s / (1 + (k - 1) s), for training and sampling."""
    background_weight: float = Field(default=0.3, ge=0, le=1)
    """Weight of the background in flow matching, the person being 1: its pattern cannot be known from any condition."""
    text_drop: float = Field(default=0.15, ge=0, le=1)
    """Share of samples without their caption; guidance needs the unconditional prediction."""
    audio_drop: float = Field(default=0.1, ge=0, le=1)
    prefix: float = Field(default=0.35, ge=0, le=1)
    """Share of steps that condition on two clean latent frames before the clip, as long-form generation does."""
    image: float = Field(default=0.5, ge=0, le=1)
    """Share of steps that condition on a clean image of the clip (image-to-video; the anchor of later chunks)."""
    data: DataConfig = DataConfig()
    personality: PersonalityOptions = PersonalityOptions()
    distill: DistillOptions = DistillOptions()
    rlhf: RlhfOptions = RlhfOptions()

    @model_validator(mode="after")
    def _own_sections_only(self) -> Self:
        for name, stages in _SECTIONS.items():
            if name in self.model_fields_set and self.stage not in stages:
                raise ValueError(f"{name}: belongs to the stage {stages[0]}, not to {self.stage}")
        return self

    def lr_scale(self, step: int) -> float:
        """The learning rate of `step` (0-based) as a share of `lr`."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        tail = math.ceil(self.steps * self.decay)
        left = (self.steps - step) / tail if tail else 1.0
        return warm * min(1.0, max(0.1, left))
