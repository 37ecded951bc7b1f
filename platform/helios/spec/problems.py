"""pydantic's errors as `Problem`s: where in the file, what was written, what was expected, the nearest valid name."""

import re
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from helios.errors import Problem, nearest
from helios.spec.quantities import shown
from helios.spec.source import FieldPath, Source, dotted, is_secret

_EXPECTED = {
    "string_type": "a string",
    "string_too_short": "some text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_pattern_mismatch": "text of the form {pattern}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "string_too_long": "at most {max_length} characters",
}
_HIDDEN = "(hidden)"


def problems_of(
    error: ValidationError, root: type[BaseModel], data: object, *, source: Source | None = None, prefix: FieldPath = ()
) -> list[Problem]:
    """Translate all of `error`'s problems.

    Args:
        error: as pydantic raised it.
        root: the model that refused.
        data: what it refused, as plain data.
        source: where `data` was written; without it problems have no line.
        prefix: path of `data` in the source.
    """
    return [_problem(item, root, data, source, prefix) for item in error.errors()]


def _problem(
    item: ErrorDetails, root: type[BaseModel], data: object, source: Source | None, prefix: FieldPath
) -> Problem:
    loc: FieldPath = tuple(item["loc"])
    is_key = loc[-1:] == ("[key]",) or item["type"] == "extra_forbidden"
    inner = _in_data(loc[:-1] if loc[-1:] == ("[key]",) else loc, data, keep_last=item["type"] in ("missing", "helios"))
    path = (*prefix, *inner)
    written = _value_at(data, inner)
    text = source.text.get(path, "") if source else ""
    message, near = _message(item, inner, root, _HIDDEN if is_secret(path) else shown(written))
    if item["type"] == "string_type" and isinstance(written, bool | int | float) and not is_secret(path):
        message += f'; quote it: "{text or shown(written)}"'
    line, column = source.at(path, key=is_key) if source else (0, 0)
    value = "" if written is _ABSENT or is_secret(path) else text or shown(written)
    if is_key and inner:
        value = str(inner[-1])
    return Problem(message, source.file if source else "", line, column, dotted(path), _one_line(value), near)


def _message(item: ErrorDetails, path: FieldPath, root: type[BaseModel], got: str) -> tuple[str, str]:
    """What was expected instead of what was written, and the nearest valid name."""
    kind, context = item["type"], item.get("ctx", {})
    near = ""
    if kind in _EXPECTED:
        message = f"expected {_EXPECTED[kind].format(**context)}, got {got}"
    elif kind == "helios":
        message, near = str(context["problem"]), str(context["nearest"])
    elif kind == "missing":
        message = "is required"
    elif kind == "extra_forbidden":
        model = model_at(root, path[:-1])
        names = field_names(model) if model else []
        expected = f"; expected one of: {', '.join(names)}" if names else ""
        message, near = f"unknown field {shown(path[-1])}{expected}", nearest(str(path[-1]), names)
    elif kind in ("literal_error", "enum"):
        options = re.findall(r"'([^']*)'", str(context["expected"]))
        listed = ", ".join(options) or str(context["expected"])
        message, near = f"expected one of: {listed}; got {got}", nearest(got.strip("'\""), options)
    else:
        message = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        message = message[:1].lower() + message[1:] if message[1:2].islower() else message
    return message, near


def model_at(root: type[BaseModel], path: FieldPath) -> type[BaseModel] | None:
    """The model that describes the mapping at `path`, or None where that is free-form."""
    annotation: Any = root
    for part in path:
        annotation = _step(annotation, part)
    return next((one for one in _members(annotation) if isinstance(one, type) and issubclass(one, BaseModel)), None)


def field_names(model: type[BaseModel]) -> list[str]:
    """The names a mapping of this model may have, as written in YAML."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _step(annotation: Any, part: str | int) -> Any:
    for one in _members(annotation):
        if isinstance(one, type) and issubclass(one, BaseModel):
            for name, field in one.model_fields.items():
                if part in (name, field.alias):
                    return field.annotation
        elif get_origin(one) in (list, tuple) and isinstance(part, int):
            return (get_args(one) or (None,))[0]
        elif get_origin(one) is dict:
            return get_args(one)[1]
    return None


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [one for member in get_args(annotation) for one in _members(member)]
    return [annotation]


_ABSENT = object()


def _in_data(loc: FieldPath, data: object, *, keep_last: bool) -> FieldPath:
    """`loc` without what pydantic puts between the names: union members, and fields of values written in short."""
    path: FieldPath = ()
    here: object = data
    for index, part in enumerate(loc):
        step = _value_at(here, (part,))
        if step is not _ABSENT:
            path, here = (*path, part), step
        elif keep_last and index == len(loc) - 1 and isinstance(here, Mapping):
            path = (*path, part)
    return path


def _value_at(data: object, path: FieldPath) -> object:
    here: Any = data
    for part in path:
        try:
            here = here[part]
        except (LookupError, TypeError):
            return _ABSENT
    return here


def _one_line(text: str, limit: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
