"""What every kind is made of: the strict base model, names, quantities as field types, metadata and status."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic import SerializerFunctionWrapHandler, ValidationError, model_serializer
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails, PydanticCustomError

from helios.spec import quantities

API_VERSION = "helios/v1"
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
ENV_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,254}$"
SECRET_PATTERN = r"^(env:[A-Za-z_][A-Za-z0-9_]{0,254}|file:/.{1,4095})$"


class Model(BaseModel):
    """camelCase in YAML, snake_case in Python; unknown keys are errors; instances are frozen."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )


def located(title: str, errors: Sequence[tuple[tuple[str | int, ...], str, str]]) -> ValidationError:
    """An error of several places at once, to raise from a model validator: (place, nearest name, message) each."""
    return ValidationError.from_exception_data(
        title,
        [
            InitErrorDetails(
                type=PydanticCustomError("helios", "{problem}", {"problem": message, "nearest": near}),
                loc=loc,
                input=None,
            )
            for loc, near, message in errors
        ],
    )


def _name(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN, value):
        raise ValueError(
            "expected a name of at most 63 lower-case letters, digits and '-', that begins and ends with a letter or "
            f"digit (RFC 1123), got {quantities.shown(value)}"
        )
    return value


def _env_name(value: str) -> str:
    if not re.fullmatch(ENV_PATTERN, value):
        raise ValueError(f"expected the name of an environment variable, got {quantities.shown(value)}")
    if value.startswith("HELIOS_"):
        raise ValueError(f"{value} cannot be set: HELIOS_ variables are what the platform tells a job")
    return value


def _secret(value: str) -> str:
    if not re.fullmatch(SECRET_PATTERN, value):
        raise ValueError("expected where the secret is, env:NAME or file:/path, never the secret itself")
    return value


Integer = Annotated[int, Field(strict=True)]
"""A whole number; `true` and `"3"` are not."""

Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": NAME_PATTERN, "maxLength": 63})]
"""An RFC 1123 label."""

EnvName = Annotated[str, AfterValidator(_env_name), Field(json_schema_extra={"pattern": ENV_PATTERN})]

SecretRef = Annotated[str, AfterValidator(_secret), Field(json_schema_extra={"pattern": SECRET_PATTERN})]
"""Where a secret is read when a job starts, on the cell that runs it: `env:NAME` or `file:/path`."""

Accelerators = Annotated[
    quantities.Accelerators,
    BeforeValidator(quantities.parse_accelerators),
    PlainSerializer(quantities.format_accelerators),
    WithJsonSchema({"type": "string", "pattern": quantities.ACCELERATORS_PATTERN, "examples": ["H100:8"]}),
]
Cpus = Annotated[
    float,
    BeforeValidator(quantities.parse_cpus),
    WithJsonSchema({
        "type": ["string", "number"], "pattern": quantities.CPUS_PATTERN, "minimum": 0, "examples": [8, "500m"],
    }),
]  # fmt: skip
Memory = Annotated[
    int,
    BeforeValidator(quantities.parse_memory),
    PlainSerializer(quantities.format_memory),
    WithJsonSchema({
        "type": ["string", "number"], "pattern": quantities.MEMORY_PATTERN, "minimum": 0, "examples": ["2Gi"],
    }),
]  # fmt: skip
Duration = Annotated[
    float,
    BeforeValidator(quantities.parse_duration),
    PlainSerializer(quantities.format_duration),
    WithJsonSchema({
        "type": ["string", "number"], "pattern": quantities.DURATION_PATTERN, "minimum": 0, "examples": ["30s", "1h30m"],
    }),
]  # fmt: skip


class Metadata(Model):
    """Who an object is."""

    name: Name
    """Unique among the objects of its kind; an RFC 1123 label."""
    labels: dict[str, str] = {}
    """Short strings to select objects by."""
    annotations: dict[str, str] = {}
    """Free notes for people and tools; HELIOS never reads them."""
    uid: str | None = None
    """Set by the control plane, ignored in files."""
    generation: int | None = None
    """Set by the control plane, ignored in files: how often the spec has changed."""
    resource_version: int | str | None = None
    """Set by the control plane, ignored in files: how often anything has changed."""
    creation_timestamp: str | float | None = None
    """Set by the control plane, ignored in files."""

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


class Condition(Model):
    """One observation of an object, as Kubernetes has them."""

    type: str
    """What is observed (`Ready`, `Reachable`), CamelCase."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds. `Unknown` says that it cannot be seen, nothing else."""
    reason: str = ""
    """Typed reason, CamelCase."""
    message: str = ""
    """One sentence for people."""
    last_transition_time: str | float | None = None
    """When `status` last changed."""


class Status(Model):
    """What the control plane observes; ignored in files. Each kind adds its own fields to the conditions."""

    model_config = ConfigDict(extra="allow")

    conditions: list[Condition] = []
    """Observations, one a type."""


class Document(Model):
    """What the kinds share."""

    api_version: Literal["helios/v1"] = "helios/v1"
    """Version of this notation."""
    metadata: Metadata
    """Who the object is."""
    status: Status = Status()
    """What the control plane observes; ignored in files."""
