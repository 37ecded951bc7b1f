"""Specs of records as models, parsed once a generation: a tick looks at every record."""

from typing import Any, TypeVar

from pydantic import BaseModel

from helios.spec import CurriculumSpec, JobSpec, ServiceSpec
from helios.store import Record

_Spec = TypeVar("_Spec", bound=BaseModel)


class Specs:
    """A cache by uid; not shared between threads."""

    def __init__(self) -> None:
        self._parsed: dict[str, tuple[int, Any]] = {}

    def job(self, record: Record) -> JobSpec:
        return self._spec(record, JobSpec)

    def service(self, record: Record) -> ServiceSpec:
        return self._spec(record, ServiceSpec)

    def curriculum(self, record: Record) -> CurriculumSpec:
        return self._spec(record, CurriculumSpec)

    def uids(self) -> tuple[str, ...]:
        """Of whom a spec is kept."""
        return tuple(self._parsed)

    def forget(self, uid: str) -> None:
        self._parsed.pop(uid, None)

    def _spec(self, record: Record, model: type[_Spec]) -> _Spec:
        generation, spec = self._parsed.get(record.uid, (0, None))
        if spec is None or generation != record.generation:
            spec = model.model_validate(record.spec)
            self._parsed[record.uid] = (record.generation, spec)
        assert isinstance(spec, model)
        return spec
