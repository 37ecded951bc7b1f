"""JSON Schema (draft 2020-12) of each kind, for editors and other tools."""

from typing import Any

from helios.spec.base import API_VERSION
from helios.spec.job import JobTemplate
from helios.spec.loading import KINDS


def json_schema(kind: str) -> dict[str, Any]:
    """The schema of one kind. Raises `KeyError` for a name that is not in `KINDS`."""
    schema: dict[str, Any] = KINDS[kind].model_json_schema(by_alias=True, mode="validation")
    schema["required"] = ["apiVersion", "kind", *schema.get("required", [])]
    for name in (JobTemplate.__name__, "Stage"):
        for field in schema.get("$defs", {}).get(name, {}).get("properties", {}).values():
            field.pop("default", None)  # what is not said there is inherited, so a default would be a lie
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:helios:{API_VERSION}:{kind}",
        **schema,
    }
