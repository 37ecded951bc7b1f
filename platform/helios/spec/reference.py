"""Renders docs/reference/spec.md from the schemas: `python -m helios.spec.reference > docs/reference/spec.md`."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from helios.spec import quantities
from helios.spec.kinds import KINDS
from helios.spec.schema import json_schema
from helios.spec.workload import CapacityType, Concurrency, QoS

_BY_PATTERN = {
    quantities.ACCELERATORS_PATTERN: "[accelerators](#quantities)",
    quantities.SHARES_PATTERN: "[accelerators or a share](#quantities)",
    quantities.CPUS_PATTERN: "[cpus](#quantities)",
    quantities.MEMORY_PATTERN: "[memory](#quantities)",
    quantities.DURATION_PATTERN: "[duration](#quantities)",
}
_WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "boolean", "object": "mapping"}
_ENUMS: dict[str, Iterable[str]] = {
    "QoS": tuple(QoS),
    "CapacityType": tuple(CapacityType),
    "Concurrency": tuple(Concurrency),
}
_INTRODUCTION = """\
# Kinds and fields

<!-- Made by `make reference` from platform/helios/spec; a test holds it true. Edit the docstrings there. -->

A document is a YAML mapping with `apiVersion: helios/v1`, a `kind`, `metadata` and `spec`. A file may hold several,
set apart by `---`. Keys that are not listed here are errors. `helios validate PATH...` checks files without a control
plane, `helios schema KIND` prints the JSON Schema that editors use.

YAML is read by the rules of YAML 1.2: only `true` and `false` are booleans, so `no` and `on` are text, and a version
like `1.33` needs quotes to stay text. Anchors, aliases and merge keys (`<<`) work. A file has at most 1 MiB, a document
at most 20,000 values and 64 levels.

## Quantities

| quantity | written as | means |
|---|---|---|
| accelerators | `H100:8`, `H100` | type and count of devices; one where there is no count |
| share | `H100:0.5`, `H100:0.125` | a part of one device, to a thousandth, that is shared with others |
| cpus | `8`, `0.5`, `500m` | cores, to a thousandth |
| memory | `2Gi`, `64Mi`, `1G`, `1024` | bytes; `Ki` to `Ei` are powers of 1024, `k` to `E` of 1000 |
| duration | `30s`, `30m`, `1h30m`, `30d`, `250ms`, `30` | time; a plain number is seconds |
"""


def render() -> str:
    """The whole page as Markdown."""
    parts = [_INTRODUCTION]
    definitions: dict[str, Any] = {}
    for kind in KINDS:
        schema = json_schema(kind)
        definitions |= schema["$defs"]
        parts.append(f"## {kind}\n\n{schema['description']}\n\n{_section(definitions[f'{kind}Spec'])}")
    parts.append("## Parts\n\nWhat the kinds above are made of, in alphabetical order.\n")
    for name, definition in sorted(definitions.items()):
        if "enum" not in definition and not name.endswith("Spec") and name != "Status":
            parts.append(f"### {name}\n\n{definition['description']}\n\n{_section(definition)}")
    return "\n".join(parts)


def _section(definition: Mapping[str, Any]) -> str:
    """The table of a mapping's fields."""
    forms = [definition, *definition.get("anyOf", ())]
    definition = next(form for form in forms if "properties" in form)  # the long form of what also has a short one
    required = definition.get("required", ())
    rows = [
        f"| `{name}` | {_type(field)} | {_default(field, required=name in required)} | {_words(field)} |"
        for name, field in definition["properties"].items()
    ]
    return "\n".join(["| field | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def _words(field: Mapping[str, Any]) -> str:
    """What a field means, on one line."""
    return " ".join(str(field.get("description", "")).split())


def _default(field: Mapping[str, Any], *, required: bool) -> str:
    if required:
        return "required"
    default = field.get("default")
    return "" if default in (None, "", [], {}) else f"`{json.dumps(default, ensure_ascii=False)}`"


def _type(field: Mapping[str, Any]) -> str:
    """A field's type in words."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        words = _options(_ENUMS[name]) if name in _ENUMS else f"[{name}](#{name.lower()})"
    elif "anyOf" in field:
        words = " or ".join(_type(one) for one in field["anyOf"] if one.get("type") != "null")
    elif field.get("pattern") in _BY_PATTERN:
        words = _BY_PATTERN[field["pattern"]]
    elif "enum" in field or "const" in field:
        words = _options(field.get("enum", [field.get("const")]))
    elif field["type"] == "array":
        words = f"list of {_type(field['items'])}"
    elif "patternProperties" in field:
        words = f"map of {_type(next(iter(field['patternProperties'].values())))}"
    elif isinstance(values := field.get("additionalProperties"), dict):
        words = f"map of {_type(values)}"
    else:
        words = _WORDS[field["type"]]
    return words


def _options(options: Iterable[str]) -> str:
    return ", ".join(f"`{option}`" for option in options)


if __name__ == "__main__":
    print(render(), end="")  # noqa: T201  # the page is this program's output
