"""Kind `Curriculum`: jobs in an order, each starting from what the one before it made."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_serializer, model_validator

from helios.errors import nearest
from helios.spec.base import Document, Errors, Model, Name, located
from helios.spec.job import JobSpec, JobTemplate

MAX_STAGES = 64
_JOB_NAME_ROOM = 63 - len("-r9999-")
Needs = Sequence[tuple[str, Sequence[str] | None]]
"""Stages as (name, needs), in order."""


class Stage(JobTemplate):
    """One job of the curriculum: its name, and what differs from `defaults`."""

    name: Name
    """Unique in the curriculum; the job is named `<curriculum>-r<run>-<stage>`."""
    needs: list[Name] | None = None
    """Stages that must have succeeded before; where it is not set, the stage before this one."""


class CurriculumSpec(Model):
    """The stages and what they share."""

    tenant: Name = "default"
    """Whose quota pays for every stage."""
    registered_model: str | None = Field(default=None, min_length=1, max_length=250)
    """Name under which the last stage registers its product in MLflow."""
    defaults: JobTemplate = JobTemplate()
    """What holds for every stage that does not say otherwise; maps are merged, `config` to any depth."""
    stages: list[Stage] = Field(min_length=1, max_length=MAX_STAGES)
    """The jobs, in order."""

    @field_serializer("defaults")
    def _only_what_was_set(self, value: JobTemplate) -> dict[str, Any]:
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @field_serializer("stages")
    def _only_overrides(self, value: list[Stage]) -> list[dict[str, Any]]:
        return [stage.model_dump(mode="json", by_alias=True, exclude_unset=True) for stage in value]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        errors = wrong_needs([(stage.name, stage.needs) for stage in self.stages])
        for index, stage in enumerate(self.stages):
            errors += self._wrong_job(index, stage)
        if errors:
            raise located("Curriculum", errors)
        return self

    def stage(self, name: str) -> Stage:
        """The stage of that name. Raises `KeyError` where there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    def needs(self, name: str) -> list[str]:
        """The stages that `name` waits for, the implicit one included."""
        return _waits([(stage.name, stage.needs) for stage in self.stages])[name]

    def job_spec(self, stage_name: str) -> JobSpec:
        """The job of a stage: its own fields over `defaults`; maps merged one level, `config` to any depth."""
        return self._job_spec(self.stage(stage_name))

    def _job_spec(self, stage: Stage) -> JobSpec:
        merged: dict[str, Any] = {"tenant": self.tenant}
        own = stage.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"name", "needs"})
        base = self.defaults.model_dump(mode="json", by_alias=True, exclude_unset=True)
        for field in base.keys() | own.keys():
            merged[field] = own.get(field, base.get(field))
            if isinstance(merged[field], dict) and field in base and field in own:
                merged[field] = _merge(base[field], own[field], deep=field == "config")
        return JobSpec.model_validate(merged, by_alias=True, by_name=False)

    def _wrong_job(self, index: int, stage: Stage) -> Errors:
        try:
            self._job_spec(stage)
        except ValidationError as error:
            found: Errors = []
            for item in error.errors():
                missing = item["type"] == "missing"
                message = (
                    "is required, here or in spec.defaults" if missing else item["msg"].removeprefix("Value error, ")
                )
                found.append((("stages", index, *item["loc"]), "", message))
            return found
        return []


class Curriculum(Document):
    """Jobs in an order, each starting from what the one before it made."""

    kind: Literal["Curriculum"] = "Curriculum"
    """`Curriculum`."""
    spec: CurriculumSpec
    """The stages and what they share."""

    @classmethod
    def across(cls, data: Mapping[str, Any]) -> Errors:
        spec = data.get("spec")
        stages = spec.get("stages") if isinstance(spec, Mapping) else None
        if not isinstance(stages, list) or not all(isinstance(stage, Mapping) for stage in stages):
            return []
        pairs = [(stage.get("name"), stage.get("needs")) for stage in stages[:MAX_STAGES]]
        if any(not isinstance(name, str) or not _are_names(needs) for name, needs in pairs):
            return []
        return [(("spec", *path), near, message) for path, near, message in wrong_needs(pairs)]

    @model_validator(mode="after")
    def _room_for_job_names(self) -> Self:
        room = _JOB_NAME_ROOM - len(self.metadata.name)
        errors: Errors = [
            (("spec", "stages", index, "name"), "", f"the job's name would be over 63 characters: {room} are left here")
            for index, stage in enumerate(self.spec.stages)
            if len(stage.name) > room
        ]
        if errors:
            raise located("Curriculum", errors)
        return self


def wrong_needs(stages: Needs) -> Errors:
    """Names used twice and needs that nothing fulfils, or else stages that wait for each other."""
    names = [name for name, _ in stages]
    errors: Errors = []
    for index, (name, needs) in enumerate(stages):
        if (first := names.index(name)) != index:
            errors.append((("stages", index, "name"), "", f"{name!r} is already the name of stages[{first}]"))
        for place, need in enumerate(needs or ()):
            if need not in names:
                message = f"no stage is named {need!r}; expected one of: {', '.join(names)}"
                errors.append((("stages", index, "needs", place), nearest(need, names), message))
    return errors or _wrong_order(stages)


def _wrong_order(stages: Needs) -> Errors:
    """Find stages that wait for themselves: take away whatever can run until nothing more can."""
    waiting = {name: set(needs) for name, needs in _waits(stages).items()}
    while ready := {name for name, needs in waiting.items() if not needs & waiting.keys()}:
        waiting = {name: needs for name, needs in waiting.items() if name not in ready}
    return [
        (("stages", index, "needs"), "", f"stages wait for each other: {cycle}")
        for index, (name, _) in enumerate(stages)
        if name in waiting and (cycle := _cycle(name, waiting))
    ]


def _waits(stages: Needs) -> dict[str, list[str]]:
    """What each stage waits for: what it says, or the stage before it."""
    names = [name for name, _ in stages]
    return {
        name: list(needs) if needs is not None else names[max(index - 1, 0) : index]
        for index, (name, needs) in enumerate(stages)
    }


def _are_names(needs: object) -> bool:
    return needs is None or (isinstance(needs, list) and all(isinstance(need, str) for need in needs))


def _merge(base: Mapping[str, Any], own: Mapping[str, Any], *, deep: bool) -> dict[str, Any]:
    merged = {**base, **own}
    if deep:
        for key in base.keys() & own.keys():
            if isinstance(base[key], dict) and isinstance(own[key], dict):
                merged[key] = _merge(base[key], own[key], deep=True)
    return merged


def _cycle(start: str, waiting: Mapping[str, set[str]]) -> str:
    """The way from `start` back to itself, or empty where `start` only waits for a cycle."""
    paths = [[start]]
    seen: set[str] = set()
    while paths:
        path = paths.pop(0)
        for name in sorted(waiting[path[-1]] & waiting.keys()):
            if name == start:
                return " -> ".join([*path, start])
            if name not in seen:
                seen.add(name)
                paths.append([*path, name])
    return ""
