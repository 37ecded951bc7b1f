"""What jobs and services have in common, and what a job may ask of the platform."""

import re
import zoneinfo
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, PydanticCustomError

from helios.errors import nearest
from helios.spec.base import AcceleratorShares, Cpus, Duration, Errors, Integer, Matching, Memory, Model, Name, located

_CRON_FIELDS = re.compile(r"[0-9A-Za-z*,/?#LW-]+")


def _cron(value: str) -> str:
    """The form only: five fields; the control plane's library has the last word on what is in them."""
    fields = value.split()
    if len(fields) == 5 and all(_CRON_FIELDS.fullmatch(field) for field in fields):
        return " ".join(fields)
    raise ValueError(f"expected five fields of crontab, like '0 3 * * *', got {value[:80]!r}")


def _timezone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (KeyError, ValueError, OSError):  # not found; a name that no file can have; a folder of the database
        near = nearest(value, zoneinfo.available_timezones())
        problem = f"expected the name of a time zone, got {value[:80]!r}"
        raise PydanticCustomError("helios", "{problem}", {"problem": problem, "nearest": near}) from None
    return value


class QoS(StrEnum):
    """Who goes first in the queue, in this order, and who is stopped to make room for whom.

    Work is stopped for a class above its own, or where it runs on quota that was borrowed and is wanted back: with
    notice and time for a checkpoint, not before its class's minimum run, and as a whole. `guaranteed` never is.
    `preemptible` work that has run for long is also stopped for shorter work of its class. It needs no quota where its
    tenant was granted the accelerator at all, and counts against none.
    """

    GUARANTEED = "guaranteed"
    STANDARD = "standard"
    PREEMPTIBLE = "preemptible"


class CapacityType(StrEnum):
    """How the nodes of a pool are paid for, and whether they can be taken away."""

    RESERVED = "reserved"
    ON_DEMAND = "on_demand"
    PREEMPTIBLE = "preemptible"


class Resources(Model):
    """What one worker (or replica) needs."""

    cpus: Cpus = 1.0
    """CPU cores: `8`, `0.5`, `500m`."""
    memory: Memory = 0
    """Memory: `2Gi`; 0 asks for none in particular."""
    accelerators: AcceleratorShares | None = None
    """Devices: `H100:8`; or a part of one that is shared with others: `H100:0.5`."""
    alternatives: list[AcceleratorShares] = Field(default=[], max_length=8)
    """What would do in the place of `accelerators`, in order of preference: `[A100:8]`."""

    @model_validator(mode="after")
    def _alternatives_of_something(self) -> Self:
        errors: Errors = []
        if self.alternatives and self.accelerators is None:
            errors.append((("alternatives",), "", "are for what spec.resources.accelerators asks; set that first"))
        asked = [self.accelerators, *self.alternatives]
        for index, one in enumerate(self.alternatives):
            if one in asked[: index + 1]:
                errors.append((("alternatives", index), "", f"{one} is asked for already"))
        if errors:
            raise located("Resources", errors)
        return self


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
    elastic: bool | None = None
    """Whether it can go on from its checkpoint with another number. `true`: it is grown and shrunk while it runs.
    `false`: it keeps the number of its first start. Not set: the number may change when it starts again anyway."""


class Checkpoint(Model):
    """How a job protects its progress."""

    every: Duration = Field(default=600.0, gt=0)
    """Time between checkpoints: `30s`."""
    keep: Integer = Field(default=2, ge=1, le=1000)
    """How many of the newest checkpoints stay."""
    grace: Duration = Field(default=30.0, ge=0, le=86_400)
    """Time from the notice of a stop (cancel, preemption, drain, timeout) to its end, to write a checkpoint: `2m`."""


Reason = Annotated[str, Matching(r"^[A-Z][A-Za-z0-9]{0,62}$", "a reason in CamelCase, like WorkerLost")]


class Retry(Model):
    """What happens when a job's program fails.

    What is no failure of the program takes no retry: a stop of its cell (`Stopped`), a preemption (`Preempted`,
    `Reclaimed`), a move or another number of workers (`Defragmented`, `Resized`), a drain (`Drained`), a lost node or
    engine (`NodeLost`, `EngineLost`), a start that the cell had no room for (`CapacityError`) or that left no trace
    (`StartLost`). All restarts together end at 100; preemptions, moves and other numbers of workers are not among them.
    """

    max_retries: Integer = Field(default=3, ge=0, le=1000)
    """Failures after which the job is given up."""
    by_reason: dict[Reason, Annotated[Integer, Field(ge=0, le=1000)]] = Field(default={})
    """Limits by the reason of an end, counted apart from the rest and in the place of `maxRetries`: `{Killed: 0}`."""


class DataSource(Model):
    """Input that lies in the bucket of a cell."""

    cell: Name
    """Name of the cell."""
    size: Memory
    """How much of it is read: `500Gi`."""


class Placement(Model):
    """Where work may run."""

    cells: list[Name] = Field(default=[])
    """Names of the cells that may run it; empty means any."""
    capacity_types: list[CapacityType] = Field(default=[])
    """Capacity types of the nodes that may run it; empty means those of its QoS class (`guaranteed` takes no
    `preemptible` ones)."""
    data: list[DataSource] = Field(default=[], max_length=100)
    """Where its input lies: other cells have to wait for it, and pay for its way."""


class Timeout(Model):
    """When to give up. Nothing is given up on where these are not set."""

    queue: Duration | None = None
    """Longest wait for capacity before it first starts: `2h`."""
    run: Duration | None = None
    """Longest time since it first ran, restarts and the waits between them included: `30d`."""


class Array(Model):
    """The same job many times over: each member is a job of its own, told its number in `HELIOS_ARRAY_INDEX`."""

    size: Integer = Field(ge=1, le=10_000)
    """How many members; they are numbered from 0."""
    parallelism: Integer | None = Field(default=None, ge=1)
    """How many members may be in the queue or run at a time; all of them where it is not set."""


class Concurrency(StrEnum):
    """What happens when a scheduled run is due and the one before it is not over."""

    ALLOW = "Allow"
    FORBID = "Forbid"
    REPLACE = "Replace"


class Schedule(Model):
    """Run the job again and again, each run as a job of its own."""

    cron: Annotated[str, AfterValidator(_cron)]
    """When, in the five fields of crontab: `0 3 * * *`; seconds as a sixth field in front are not taken."""
    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"
    """Name of the time zone that `cron` is read in: `Europe/Berlin`."""
    concurrency: Concurrency = Concurrency.FORBID
    """Whether a run may begin while the one before it goes on."""
    suspend: bool = False
    """Begin no runs for now."""
    keep: Integer = Field(default=5, ge=1, le=1000)
    """How many ended runs stay; older ones are deleted."""
