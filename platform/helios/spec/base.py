"""What every kind is made of: the strict base model, names, quantities as field types, metadata and status."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    WithJsonSchema,
    model_serializer,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from helios.spec import quantities
from helios.spec.source import FieldPath

API_VERSION = "helios/v1"

Errors = list[tuple[FieldPath, str, str]]
"""Problems across fields: (path, nearest valid name or empty, message) each."""


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


def located(title: str, errors: Errors) -> ValidationError:
    """One error for several places, to raise from a model validator."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError("helios", "{problem}", {"problem": message, "nearest": near}), loc=path, input=None
        )
        for path, near, message in errors
    ]
    return ValidationError.from_exception_data(title, details)


@dataclass(frozen=True, slots=True)
class Matching:
    """Text of one form, for `Annotated[str, Matching(...)]`; the form goes into the JSON Schema too.

    Attributes:
        expected: what to say was expected, in words.
        secret: the text may be a secret that was written in the wrong place, so errors do not repeat it.
    """

    pattern: str
    expected: str
    secret: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.pattern}

    def check(self, value: str) -> str:
        if re.fullmatch(self.pattern, value) and "\n" not in value:
            return value
        context = {"problem": f"expected {self.expected}", "nearest": "", "secret": self.secret}
        if not self.secret:
            context["problem"] = f"{context['problem']}, got {quantities.shown(value)}"
        raise PydanticCustomError("helios", "{problem}", context)


def _not_reserved(value: str) -> str:
    if value.startswith("HELIOS_"):
        raise ValueError(f"{value} cannot be set: HELIOS_ variables are what the platform tells a job")
    return value


Integer = Annotated[int, Field(strict=True)]
"""A whole number; `true` and `"3"` are not."""

Name = Annotated[
    str,
    Matching(
        r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        "a name (RFC 1123): at most 63 lower-case letters, digits and '-', first and last a letter or digit",
    ),
]
"""An RFC 1123 label."""

EnvName = Annotated[
    str,
    Matching(r"^[A-Za-z_][A-Za-z0-9_]{0,254}$", "the name of an environment variable"),
    AfterValidator(_not_reserved),
]

SecretRef = Annotated[
    str,
    Matching(
        r"^(env:[A-Za-z_][A-Za-z0-9_]{0,254}|file:/.{1,4095}"
        r"|k8s:[a-z0-9][-a-z0-9.]{0,252}/[a-z0-9][-a-z0-9.]{0,252}/[-._A-Za-z0-9]{1,253}"
        r"|aws-sm:[-A-Za-z0-9/_+=.@:!]{1,2048}(#[^#]{1,256})?)$",
        "where the secret is (env:NAME, file:/path, k8s:NAMESPACE/SECRET/KEY or aws-sm:ID#FIELD), "
        "never the secret itself",
        secret=True,
    ),
]
"""Where a secret is read when a job starts, on the cell that runs it.

`env:NAME`, `file:/path`, `k8s:NAMESPACE/SECRET/KEY`, or `aws-sm:ID` with `#FIELD` for one field of a JSON secret.
"""

AcceleratorType = Annotated[str, Matching(r"^[A-Za-z][A-Za-z0-9._-]{0,62}$", "an accelerator type, like H100")]

Accelerators = Annotated[
    quantities.Accelerators,
    BeforeValidator(quantities.parse_accelerators),
    PlainSerializer(quantities.format_accelerators),
    WithJsonSchema({"type": "string", "pattern": quantities.ACCELERATORS_PATTERN, "examples": ["H100:8"]}),
]
AcceleratorShares = Annotated[
    quantities.Accelerators,
    BeforeValidator(quantities.parse_shares),
    PlainSerializer(quantities.format_accelerators),
    WithJsonSchema({"type": "string", "pattern": quantities.SHARES_PATTERN, "examples": ["H100:8", "H100:0.5"]}),
]
"""Whole devices, or a part of one."""
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
        "type": ["string", "number"], "pattern": quantities.DURATION_PATTERN, "minimum": 0, "examples": ["1h30m"],
    }),
]  # fmt: skip


class Metadata(Model):
    """Who an object is."""

    name: Name
    """Unique among the objects of its kind; an RFC 1123 label."""
    labels: dict[str, str] = Field(default={})
    """Short strings to select objects by."""
    annotations: dict[str, str] = Field(default={})
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

    conditions: list[Condition] = Field(default=[])
    """Observations, one a type."""


class Document(Model):
    """What the kinds share."""

    api_version: Literal["helios/v1"] = "helios/v1"
    """Version of this notation."""
    metadata: Metadata
    """Who the object is."""
    status: Status = Status()
    """What the control plane observes; ignored in files."""

    @classmethod
    def across(cls, data: Mapping[str, Any]) -> Errors:
        """What is wrong between fields of plain data that some other problem keeps from becoming a document."""
        del data
        return []
