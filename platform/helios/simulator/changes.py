"""What a fleet is to be played on under: documents of Cells and Tenants, and two kinds that only a simulation knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import Field, ValidationError, create_model

from helios.errors import Problem, SpecError, nearest
from helios.scheduler import Policy
from helios.spec import QoS
from helios.spec.base import API_VERSION, Metadata, Model
from helios.spec.cell import Cell
from helios.spec.problems import problems_of
from helios.spec.quantities import shown
from helios.spec.source import FieldPath, Source, dotted, read_sources
from helios.spec.tenant import Tenant

_Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_TYPES: Mapping[Any, Any] = {
    float: _Number,
    int: Annotated[int, Field(ge=0, strict=True)],
    bool: Annotated[bool, Field(strict=True)],
    Mapping[QoS, float]: dict[QoS, _Number],
    Mapping[str, float]: dict[str, _Positive],
}
_NARROWER: Mapping[str, Any] = {
    "half_life": _Positive,
    "unknown_estimate": _Positive,
    "global_stage": Literal["helios", "least_loaded"],
    "cell_stage": Literal["helios", "best_fit"],
}


def _policy_spec() -> type[Model]:
    """The fields of the scheduler's policy, none of them needed, in camelCase; times are seconds."""
    plain, hints = Policy(), get_type_hints(Policy)
    found: dict[str, Any] = {
        field.name: (
            _NARROWER.get(field.name, _TYPES.get(hints[field.name], hints[field.name])),
            getattr(plain, field.name),
        )
        for field in fields(Policy)
    }
    return create_model("PolicySpec", __base__=Model, **found)


if TYPE_CHECKING:
    PolicySpec = Model
else:
    PolicySpec = _policy_spec()


class PolicyChange(Model):
    """Fields of `helios.scheduler.Policy` that are to be otherwise; those by class are changed class by class."""

    api_version: Literal["helios/v1"]
    kind: Literal["Policy"]
    metadata: Metadata | None = None
    spec: PolicySpec

    def applied(self, policy: Policy) -> Policy:
        """The policy with what is said here."""
        changed: dict[str, Any] = {}
        for name in self.spec.model_fields_set:
            value, before = getattr(self.spec, name), getattr(policy, name)
            changed[name] = {**before, **value} if isinstance(before, Mapping) else value
        return replace(policy, **changed)


class FleetSpec(Model):
    """What no document of a cell or tenant can say: `Cell/NAME`, `Cell/NAME/NODE`, `Tenant/NAME`."""

    remove: list[str] = Field(default=[])
    """Cells and tenants that are not there any more; a tenant goes with its work, work of a cell waits again."""
    cordon: list[str] = Field(default=[])
    """Cells and nodes that take no new work."""
    uncordon: list[str] = Field(default=[])
    """Cells and nodes that take work again."""


class FleetChange(Model):
    """Removals and cordons."""

    api_version: Literal["helios/v1"] = "helios/v1"
    kind: Literal["Fleet"] = "Fleet"
    metadata: Metadata | None = None
    spec: FleetSpec


Document = Cell | Tenant | PolicyChange | FleetChange
KINDS: Mapping[str, type[Document]] = {"Cell": Cell, "Tenant": Tenant, "Policy": PolicyChange, "Fleet": FleetChange}


@dataclass(frozen=True, slots=True)
class Change:
    """One document of a change.

    Attributes:
        file: that it is from, or the option.
        source: where in it each value is; None where it was made from an option.
    """

    document: Document
    file: str
    source: Source | None = None

    def problem(self, path: FieldPath, message: str, near: str = "") -> Problem:
        """What is wrong at a place of it."""
        if self.source is None:
            return Problem(message, self.file, nearest=near)
        return Problem(message, self.file, *self.source.at(path), dotted(path), self.source.text.get(path, ""), near)


def read_changes(text: str, file: str) -> tuple[Change, ...]:
    """The documents of one YAML text, in order.

    Raises:
        SpecError: with every problem, its line and the nearest valid name.
    """
    sources, problems = read_sources(text, file)
    if not sources and not problems:
        message = f"is empty: expected documents of kind {', '.join(KINDS)}"
        problems = [Problem(message, file=file, line=1, column=1)]
    changes: list[Change] = []
    for source in sources:
        problems += source.problems
        found = _read(source)
        if isinstance(found, Change):
            changes.append(found)
        else:
            problems += found
    problems += _twice(changes)
    if problems:
        raise SpecError(sorted(problems, key=lambda one: (one.line, one.column)))
    return tuple(changes)


def removal(what: str, option: str) -> Change:
    """The change that takes one cell or tenant away, as an option says it."""
    return Change(FleetChange(spec=FleetSpec(remove=[what])), option)


def _read(source: Source) -> Change | list[Problem]:
    data, file = source.data, source.file
    if not isinstance(data, Mapping):
        message = f"expected a mapping with apiVersion and kind, got {shown(data)}"
        return [Problem(message, file, *source.start)]
    version, kind = data.get("apiVersion"), data.get("kind")
    problems = []
    if version != API_VERSION:
        got = f"got {shown(version)}" if version is not None else "which is missing"
        line, column = source.at(("apiVersion",))
        problems.append(Problem(f"expected {API_VERSION}, {got}", file, line, column, "apiVersion"))
    if not isinstance(kind, str) or kind not in KINDS:
        near = nearest(kind, KINDS) if isinstance(kind, str) else ""
        message = f"expected one of: {', '.join(KINDS)}; got {shown(kind)}"
        problems.append(Problem(message, file, *source.at(("kind",)), "kind", shown(kind), near))
        return problems
    model = KINDS[kind]
    try:
        return problems or Change(model.model_validate(data, by_alias=True, by_name=False), file, source)
    except ValidationError as error:
        problems += problems_of(error, model, data, source=source)
        across = model.across(data) if issubclass(model, Cell | Tenant) else []
        return problems + [Problem(said, file, *source.at(path), dotted(path), "", near) for path, near, said in across]


def _twice(changes: Sequence[Change]) -> list[Problem]:
    seen: set[tuple[str, str]] = set()
    problems = []
    for change in changes:
        document = change.document
        if not isinstance(document, Cell | Tenant):
            continue
        key = (document.kind, document.metadata.name)
        if key in seen:
            problems.append(change.problem(("metadata", "name"), f"{key[0]} {key[1]!r} is there twice"))
        seen.add(key)
    return problems
