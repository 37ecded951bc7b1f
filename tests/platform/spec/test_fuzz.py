"""Mutations of the repository's own YAML: whatever is typed, the answer is a document or a problem with a place."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helios.errors import SpecError
from helios.spec import from_json, parse_documents, to_json

ROOT = Path(__file__).resolve().parents[3]
TEXTS = [path.read_text() for path in sorted([*ROOT.glob("cells/*.yaml"), *ROOT.glob("jobs/**/*.yaml")])]
SNIPPETS = st.sampled_from(
    [
        "\t", " ", "\n", ": ", "- ", "[", "]", "{", "}", "&a ", "*a", "<<: *a", "!!set ", "| ", "> ", "'", '"', "#",
        "---\n", "...\n", "null", "no", "1e999", ".nan", "-1", "0", "\x00", "\x85", "\u2028", "é", "\U0001f600", "? ",
        "%YAML 1.2\n", "!!python/name:os.system ", "99999999999999999999", "2Gi", "30s", "H100:8", "\r", "@", "`", "~",
        "\\", ",", "=",
    ]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A valid file with up to five edits: cut, copy, insert, swap of words, duplicated lines."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        kind = draw(st.sampled_from(["cut", "copy", "insert", "text", "replace", "line"]))
        if kind == "cut":
            text = text[:start] + text[end:]
        elif kind == "copy":
            to = draw(st.integers(0, len(text)))
            text = text[:to] + text[start:end] + text[to:]
        elif kind == "insert":
            text = text[:start] + draw(SNIPPETS) + text[start:]
        elif kind == "text":
            text = text[:start] + draw(st.text(max_size=8)) + text[start:]
        elif kind == "replace":
            text = text[:start] + draw(SNIPPETS) + text[end:]
        else:
            lines = text.splitlines(keepends=True)
            line = draw(st.integers(0, max(0, len(lines) - 1)))
            text = "".join([*lines[:line], *lines[line : line + 1] * 2, *lines[line + 1 :]])
    return text


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_any_edit_gives_documents_or_problems_with_a_place(text: str) -> None:
    """Nothing but SpecError is raised; each problem has the file, a line and column that exist, and words."""
    try:
        loaded = parse_documents(text, file="x.yaml")
    except SpecError as error:
        problems = error.problems
    else:
        assert all(from_json(to_json(one.document)) == one.document for one in loaded)
        return
    lines = len(re.findall("[\n\r\x85\u2028\u2029]", text)) + 1
    assert problems
    for problem in problems:
        assert problem.file == "x.yaml"
        assert 0 < problem.line <= lines
        assert problem.column > 0
        assert problem.message
        assert "\n" not in problem.message


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
def test_any_text_gives_documents_or_problems_with_a_place(text: str) -> None:
    """The same for text that never was YAML."""
    with pytest.raises(SpecError) as caught:
        parse_documents(text, file="x.yaml")
    assert all(problem.file and problem.line > 0 and problem.column > 0 for problem in caught.value.problems)
