"""What jobs and services have in common, and what a job may ask of the platform."""

from enum import StrEnum
from typing import Any, Self

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from helios.spec.base import Accelerators, Cpus, Duration, Integer, Memory, Model, Name, located


class QoS(StrEnum):
    """Who goes first in the queue, in this order. Nothing that runs is stopped to make room for another."""

    GUARANTEED = "guaranteed"
    STANDARD = "standard"
    PREEMPTIBLE = "preemptible"


class Resources(Model):
    """What one worker (or replica) needs."""

    cpus: Cpus = 1.0
    """CPU cores: `8`, `0.5`, `500m`."""
    memory: Memory = 0
    """Memory: `2Gi`; 0 asks for none in particular."""
    accelerators: Accelerators | None = None
    """Devices: `H100:8`."""


class Range(Model):
    """From `min` to `max`; a plain number means exactly that many."""

    min: Integer
    """The fewest that will do."""
    max: Integer
    """The most that are of use; `min` where it is left out."""

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            return {"min": value, "max": value}
        if isinstance(value, dict) and "min" in value and "max" not in value:
            return {**value, "max": value["min"]}
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise located("Range", [(("max",), "", f"expected max to be at least min ({self.min}), got {self.max}")])
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        full = handler(schema)
        full["required"] = ["min"]
        least = full["properties"]["min"].get("minimum", 0)
        return {"description": full.pop("description"), "anyOf": [{"type": "integer", "minimum": least}, full]}


class Workers(Range):
    """How many workers the gang has; between `min` and `max` as capacity allows. A number means exactly that many."""

    min: Integer = Field(ge=1, le=100_000)
    """The gang never runs with fewer."""
    max: Integer = Field(ge=1, le=100_000)
    """The gang never runs with more; `min` where it is left out."""


class Checkpoint(Model):
    """How a job protects its progress."""

    every: Duration = Field(default=600.0, gt=0)
    """Time between checkpoints: `30s`."""
    keep: Integer = Field(default=2, ge=1, le=1000)
    """How many of the newest checkpoints stay."""


class Retry(Model):
    """What happens when a job's program fails.

    What is no failure of the program takes no retry: a stop of its cell (`Stopped`), a preemption (`Preempted`), a lost
    engine (`EngineLost`), a start that left no trace (`StartLost`). All restarts together end at 100.
    """

    max_retries: Integer = Field(default=3, ge=0, le=1000)
    """Failures after which the job is given up."""


class Placement(Model):
    """Where work may run."""

    cells: list[Name] = Field(default=[])
    """Names of the cells that may run it; empty means any."""


class Timeout(Model):
    """When to give up. Nothing is given up on where these are not set."""

    queue: Duration | None = None
    """Longest wait for capacity before it first starts: `2h`."""
    run: Duration | None = None
    """Longest time since it first ran, restarts and the waits between them included: `30d`."""
