import contextlib
import json
import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # ships no types
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from helios.errors import SpecError
from helios.spec import KINDS, from_json, json_schema, load_documents, to_json
from helios.spec.reference import render

VALIDATORS = {kind: jsonschema.Draft202012Validator(json_schema(kind)) for kind in KINDS}
JOB = {"apiVersion": "helios/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": {"entrypoint": "run"}}


@pytest.mark.parametrize("kind", KINDS)
def test_each_schema_is_a_schema(kind: str) -> None:
    """Draft 2020-12, closed, camelCase, with a description of every field (its own or its part's)."""
    schema = json_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["required"][:2] == ["apiVersion", "kind"]
    parts = list(schema["$defs"].values())
    mappings = [schema, *parts, *(form for part in parts for form in part.get("anyOf", ()))]
    for mapping in mappings:
        if "properties" in mapping:
            assert mapping["additionalProperties"] is (mapping.get("title") == "Status")
            for name, field in mapping["properties"].items():
                assert "_" not in name
                assert field.get("description") or "$ref" in field, f"{mapping['title']}.{name}"


def test_schemas_take_the_yaml_of_the_repository(repository: Path) -> None:
    """What is written by hand passes, as does what HELIOS writes out."""
    files = sorted([*repository.glob("cells/*.yaml"), *repository.glob("jobs/**/*.yaml")])
    assert files
    for file in files:
        for data in yaml.safe_load_all(file.read_text()):
            VALIDATORS[data["kind"]].validate(data)
    for loaded in load_documents(files):
        VALIDATORS[loaded.document.kind].validate(json.loads(json.dumps(to_json(loaded.document))))


@pytest.mark.parametrize(
    "spec",
    [
        {"qso": "x"}, {"qos": "best"}, {"workers": 0}, {"workers": {"max": 1}}, {"resources": {"memory": "2GB"}},
        {"resources": {"accelerators": "H100:0"}}, {"checkpoint": {"every": "soon"}}, {"envs": {"1": "x"}},
        {"envs": {"A": 1}}, {"secrets": {"A": "hf_secret"}}, {"entrypoint": ""}, {"tenant": "A"},
    ],
)  # fmt: skip
def test_schemas_refuse_what_helios_refuses(spec: dict[str, Any]) -> None:
    data = {**JOB, "spec": {"entrypoint": "run", **spec}}
    assert not VALIDATORS["Job"].is_valid(data)
    with pytest.raises(SpecError):
        from_json(data)


quantities = st.from_regex(r"\A[0-9]{1,3}(\.[0-9]{1,2})?(m|s|h|d|ms|Ki|Gi|M|)\Z") | st.integers(0, 100)


@given(cpus=quantities, memory=quantities, every=quantities)
def test_editors_show_no_error_for_what_helios_takes(cpus: object, memory: object, every: object) -> None:
    """Whatever notation of a quantity the reader takes, the schema takes."""
    for field in {"resources": {"cpus": cpus}}, {"resources": {"memory": memory}}, {"checkpoint": {"every": every}}:
        data = {**JOB, "spec": {"entrypoint": "run", **field}}
        with contextlib.suppress(SpecError):
            from_json(data)
            VALIDATORS["Job"].validate(data)


def test_a_stage_inherits_so_its_schema_names_no_defaults() -> None:
    definitions = json_schema("Curriculum")["$defs"]
    for name in ("JobTemplate", "Stage"):
        assert not any("default" in field for field in definitions[name]["properties"].values())


def test_the_reference_page_is_what_the_code_says(repository: Path) -> None:
    """`make reference` makes it; nothing in it is written by hand."""
    page = repository / "docs" / "reference" / "spec.md"
    assert page.read_text() == render(), "run `make reference`"


def test_links_of_the_reference_page_lead_somewhere() -> None:
    page = render()
    headings = {heading.lower() for heading in re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= headings
