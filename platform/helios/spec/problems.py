"""pydantic's errors as `Problem`s: where in the file, what was written, what was expected, the nearest valid name."""

import re
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from helios.errors import Problem, nearest
from helios.spec.quantities import shown
from helios.spec.source import Path, Source, dotted

_EXPECTED = {
    "string_type": "a string",
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
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def problems_of(
    error: ValidationError, root: type[BaseModel], data: object, *, source: Source | None = None, prefix: Path = ()
) -> list[Problem]:
    """Translate all of `error`'s problems.

    Args:
        root: the model that refused.
        data: what it refused, as plain data.
        source: where `data` was written; without it problems have no line.
        prefix: path of `data` in the source.
    """
    return [_problem(item, root, data, source, prefix) for item in error.errors()]


def _problem(item: Any, root: type[BaseModel], data: object, source: Source | None, prefix: Path) -> Problem:
    loc: Path = tuple(item["loc"])
    is_key = loc[-1:] == ("[key]",)
    absent = item["type"] in ("missing", "missing_argument")
    inner = _in_data(loc[:-1] if is_key else loc, data, keep_last=absent or _is_semantic(item))
    path = (*prefix, *inner)
    written = _value_at(data, inner)
    message, near = _message(item, inner, root, written, source.text.get(path, "") if source else "")
    line, column = source.at(path, key=is_key or item["type"] == "extra_forbidden") if source else (0, 0)
    value = "" if written is _ABSENT else (source.text.get(path) if source else None) or shown(written)
    if is_key or item["type"] == "extra_forbidden":
        value = str(inner[-1]) if inner else ""
    return Problem(message, source.file if source else "", line, column, dotted(path), _one_line(value), near)


def _message(item: Any, path: Path, root: type[BaseModel], written: object, text: str) -> tuple[str, str]:
    """What was expected instead of what was written, and the nearest valid name."""
    kind, context = item["type"], item.get("ctx") or {}
    if kind == "helios":
        return str(context["problem"]), str(context.get("nearest", ""))
    if kind == "missing":
        return "is required", ""
    if kind == "extra_forbidden":
        model = model_at(root, path[:-1])
        names = field_names(model) if model else []
        expected = f"; expected one of: {', '.join(names)}" if names else ""
        return f"unknown field {shown(path[-1])}{expected}", nearest(str(path[-1]), names)
    if kind in ("literal_error", "enum"):
        options = re.findall(r"'([^']*)'", str(context["expected"]))
        listed = ", ".join(options) or str(context["expected"])
        near = nearest(written, options) if isinstance(written, str) else ""
        return f"expected one of: {listed}; got {shown(written)}", near
    if kind in _EXPECTED:
        quote = ""
        if kind == "string_type" and isinstance(written, bool | int | float):
            quote = f'; quote it: "{text or shown(written)}"'
        return f"expected {_EXPECTED[kind]}, got {shown(written)}{quote}", ""
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"expected {words} {context[name]}, got {shown(written)}", ""
    if kind == "string_pattern_mismatch":
        return f"expected text like {context['pattern']}, got {shown(written)}", ""
    if kind == "too_short":
        return f"expected at least {context['min_length']} items, got {context['actual_length']}", ""
    if kind == "string_too_short":
        return "expected some text, got none", ""
    message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return message[:1].lower() + message[1:] if message[1:2].islower() else message, ""


def model_at(root: type[BaseModel], path: Path) -> type[BaseModel] | None:
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


def _is_semantic(item: Any) -> bool:
    return bool(item["type"] == "helios")


def _in_data(loc: Path, data: object, *, keep_last: bool) -> Path:
    """`loc` without what pydantic puts between the names: union members, and fields of values written in short."""
    path: Path = ()
    here: object = data
    for index, part in enumerate(loc):
        step = _value_at(here, (part,))
        if step is not _ABSENT:
            path, here = (*path, part), step
        elif keep_last and index == len(loc) - 1 and isinstance(here, Mapping):
            path = (*path, part)
    return path


def _value_at(data: object, path: Path) -> object:
    for part in path:
        if isinstance(data, Mapping) and part in data:
            data = data[part]
        elif isinstance(data, list) and isinstance(part, int) and 0 <= part < len(data):
            data = data[part]
        else:
            return _ABSENT
    return data


def _one_line(text: str, limit: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
