"""Checks `spec.config` with the model that the program's own package offers.

A package offers one through the entry-point group `helios.configs`, named after the module that the entrypoint runs
(`python -m <module> ...`) or that the application is in (`<module>:function`). Packages are only imported when a
document names them, and a package that is not there is a note, not an error: a laptop that submits work need not have
what runs it.
"""

import functools
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from helios.errors import Problem, SpecError
from helios.spec.curriculum import Curriculum
from helios.spec.job import Job
from helios.spec.kinds import AnyDocument, Loaded
from helios.spec.problems import problems_of
from helios.spec.service import Service
from helios.spec.source import FieldPath, Source

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "helios.configs"


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with a document's configs, and what could not be checked."""

    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def check(document: AnyDocument | Loaded) -> tuple[str, ...]:
    """Check every config of a document. Returns notes on what could not be checked.

    What `load_documents` returned was checked as it was read, with lines; it is not checked again.

    Raises:
        SpecError: with every problem.
    """
    if isinstance(document, Loaded):
        return document.notes
    found = look(document)
    if found.problems:
        raise SpecError(found.problems)
    return found.notes


def look(document: AnyDocument, source: Source | None = None) -> Findings:
    """Check every config of a document; `source` gives problems their lines."""
    problems: list[Problem] = []
    notes: list[str] = []
    for path, module, config in _configs(document):
        entry = _entry_points().get(module)
        if entry is None:
            continue
        model = _model(entry)
        if isinstance(model, str):
            notes.append(f"{document.kind} {document.metadata.name!r}: the config was not checked: {model}")
            continue
        try:
            model.model_validate(config)
        except ValidationError as error:
            problems += _problems(error, model, config, source, path)
    return Findings(tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(notes)))


def _configs(document: AnyDocument) -> Iterator[tuple[FieldPath, str, Mapping[str, Any]]]:
    """FieldPath, module and content of each config."""
    if isinstance(document, Job):
        yield ("spec", "config"), module_of(document.spec.entrypoint), document.spec.config
    elif isinstance(document, Service):
        yield ("spec", "config"), document.spec.application.partition(":")[0], document.spec.config
    elif isinstance(document, Curriculum):
        for index, stage in enumerate(document.spec.stages):
            spec = document.spec.job_spec(stage.name)
            yield ("spec", "stages", index, "config"), module_of(spec.entrypoint), spec.config


def module_of(entrypoint: str) -> str:
    """The module that a command line runs with `-m`, or empty."""
    try:
        words = shlex.split(entrypoint)
    except ValueError:
        return ""
    flags = [index for index, word in enumerate(words[:-1]) if word == "-m"]
    return words[flags[0] + 1] if flags else ""


def _problems(
    error: ValidationError, model: type[BaseModel], config: Mapping[str, Any], source: Source | None, path: FieldPath
) -> list[Problem]:
    """Problems at the stage's own config, or at `spec.defaults.config` where the value was written there."""
    own = problems_of(error, model, config, source=source, prefix=path)
    if source is None or path[1] != "stages":
        return own
    shared = problems_of(error, model, config, source=source, prefix=("spec", "defaults", "config"))
    written = [len(source.nearest_path((*path, *item["loc"]))) - len(path) for item in error.errors()]
    inherited = [
        len(source.nearest_path(("spec", "defaults", "config", *item["loc"]))) - 3 for item in error.errors()
    ]  # fmt: skip
    pairs = zip(own, shared, written, inherited, strict=True)
    return [there if theirs > max(mine, 0) else here for here, there, mine, theirs in pairs]


@functools.cache
def _entry_points() -> "dict[str, EntryPoint]":
    from importlib.metadata import entry_points  # 20 ms that only a document with a config pays

    return {entry.name: entry for entry in entry_points(group=GROUP)}


@functools.cache
def _model(entry: "EntryPoint") -> type[BaseModel] | str:
    """The model, or a sentence on why there is none."""
    try:
        model = entry.load()
    except Exception as error:  # noqa: BLE001  # another package's code: whatever it raises, the document is not at fault
        return f"{entry.value} of {GROUP} cannot be loaded ({type(error).__name__}: {error})"
    if isinstance(model, type) and issubclass(model, BaseModel):
        return model
    return f"{entry.value} of {GROUP} is not a pydantic model"
