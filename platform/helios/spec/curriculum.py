"""Kind `Curriculum`: jobs in an order, each starting from what the one before it made."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_serializer, model_validator

from helios.errors import nearest
from helios.spec.base import Document, Model, Name, located
from helios.spec.job import JobSpec, JobTemplate

MAX_STAGES = 64
_JOB_NAME_ROOM = 63 - len("-r9999-")
Errors = list[tuple[tuple[str | int, ...], str, str]]


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
        errors = self._wrong_names() or self._wrong_order()
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
        names = [stage.name for stage in self.stages]
        index = names.index(name)
        explicit = self.stages[index].needs
        return list(explicit) if explicit is not None else names[max(index - 1, 0) : index]

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

    def _wrong_names(self) -> Errors:
        names = [stage.name for stage in self.stages]
        errors: Errors = []
        for index, stage in enumerate(self.stages):
            if (first := names.index(stage.name)) != index:
                errors.append((("stages", index, "name"), "", f"{stage.name!r} is already the name of stages[{first}]"))
            for place, need in enumerate(stage.needs or ()):
                if need not in names:
                    message = f"no stage is named {need!r}; expected one of: {', '.join(names)}"
                    errors.append((("stages", index, "needs", place), nearest(need, names), message))
        return errors

    def _wrong_order(self) -> Errors:
        """Stages that wait for themselves, found by taking away whatever can run until nothing more can."""
        waiting = {stage.name: set(self.needs(stage.name)) for stage in self.stages}
        while ready := {name for name, needs in waiting.items() if not needs & waiting.keys()}:
            waiting = {name: needs for name, needs in waiting.items() if name not in ready}
        return [
            (("stages", index, "needs"), "", f"stages wait for each other: {_cycle(stage.name, waiting)}")
            for index, stage in enumerate(self.stages)
            if stage.name in waiting and _cycle(stage.name, waiting)
        ]

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
