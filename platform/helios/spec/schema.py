"""JSON Schema (draft 2020-12) of each kind, for editors and other tools."""

from collections.abc import Iterator
from typing import Any

from helios.spec.base import API_VERSION
from helios.spec.curriculum import Stage
from helios.spec.job import JobTemplate
from helios.spec.kinds import KINDS
from helios.spec.quantities import DURATION_PATTERN, MEMORY_PATTERN, format_duration, format_memory

_INHERITING = (JobTemplate.__name__, Stage.__name__)
"""What is not said there is inherited, so a default in their schema would be a lie."""
_FORMATS = {DURATION_PATTERN: format_duration, MEMORY_PATTERN: format_memory}


def json_schema(kind: str) -> dict[str, Any]:
    """The schema of one kind. Raises `KeyError` for a name that is not in `KINDS`."""
    schema: dict[str, Any] = KINDS[kind].model_json_schema(by_alias=True, mode="validation")
    schema["required"] = ["apiVersion", "kind", *schema.get("required", [])]
    for name in _INHERITING:
        for field in schema["$defs"].get(name, {}).get("properties", {}).values():
            field.pop("default", None)
    for node in _nodes(schema):
        _tidy(node)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:helios:{API_VERSION}:{kind}",
        **schema,
    }


def _tidy(node: dict[str, Any]) -> None:
    """Say what pydantic does not: closed maps, defaults as people write them."""
    if "patternProperties" in node:
        node["additionalProperties"] = False
    if isinstance(node.get("default"), int | float) and node.get("pattern") in _FORMATS:
        node["default"] = _FORMATS[node["pattern"]](node["default"])
    if isinstance(node.get("default"), dict) and "$ref" in node:
        del node["default"]  # its parts have their own
    for field in node.get("properties", {}).values():
        field.pop("title", None)  # the name again, with capitals


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in the schema."""
    if isinstance(schema, dict):
        yield schema
        for value in list(schema.values()):
            yield from _nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _nodes(value)
