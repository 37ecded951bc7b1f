"""What an evaluation job may be told: its `spec.config`. Nothing heavy here, so that `helios validate` can use it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class EvaluateConfig(BaseModel):
    """Which model is measured, against what, on how many people."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )

    model: str = "models:/avatar-tiny@production"
    """A folder with a pipeline bundle, or a model of MLflow's registry (`models:/name@alias`)."""
    teacher: str | None = None
    """The guided model before distillation; by default the `personality` ancestor that the bundle's lineage names."""
    before: str | None = None
    """The model before preference tuning; by default the `distill` ancestor."""
    n: int = Field(default=32, ge=2, le=512)
    """Held-out people; retrieval is among 32 of them."""
    teacher_clips: int | None = Field(default=None, ge=2)
    """People that the (slow) teacher is run on; all unless given."""
    teacher_steps: int = Field(default=24, ge=1)
    split: Literal["test", "selection"] = "test"
    seed: int = 0

    def clips_of_teacher(self) -> int:
        return min(self.n, self.teacher_clips or self.n)
