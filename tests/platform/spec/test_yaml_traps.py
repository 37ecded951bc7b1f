"""YAML's well-known traps: each is either read as people mean it or refused with a line."""

from collections.abc import Callable

import pytest

from helios.errors import Problem
from helios.spec import Job, parse_documents
from helios.spec.source import MAX_BYTES, MAX_DEPTH, MAX_NODES

Refused = Callable[[str], tuple[Problem, ...]]
HEAD = "apiVersion: helios/v1\nkind: Job\nmetadata: {name: x}\nspec:\n  entrypoint: run\n"


def config(text: str) -> object:
    """What `spec.config.x` is where `text` is written."""
    document = parse_documents(f"{HEAD}  config: {{x: {text}}}\n")[0].document
    assert isinstance(document, Job)
    return document.spec.config["x"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("Yes", "Yes"), ("true", True), ("False", False), ("~", None), ("null", None),
        ("1_000", "1_000"),
        ("1:30", "1:30"), ("2026-01-01", "2026-01-01"), ("0777", "0777"), ("0o17", 15), ("0xff", 255),
        ("1e3", 1000.0), ("-1.5", -1.5), (".5", 0.5), ("1.33", 1.33), ('"1.33"', "1.33"), ("!!str 1.33", "1.33"),
        ("H100:8", "H100:8"), ("=", "="), ("é", "é"), ("'it''s'", "it's"),
    ],
)  # fmt: skip
def test_plain_scalars_are_what_yaml_1_2_says(text: str, value: object) -> None:
    """Norway stays Norway, times and dates stay text, a leading zero is not octal."""
    assert config(text) == value
    assert type(config(text)) is type(value)


def test_a_version_that_became_a_number_says_how_to_write_it(refused: Refused) -> None:
    (problem,) = refused("""\
apiVersion: helios/v1
kind: Cell
metadata: {name: x}
spec:
  provider: local
  cluster: {kubernetesVersion: 1.30}
  nodePools: [{name: a, capacityType: reserved, nodes: 1}]
""")
    assert 'quote it: "1.30"' in problem.message
    assert (problem.line, problem.column, problem.value) == (6, 32, "1.30")


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        ("x: [1, 2", "flow sequence", 1, 9),
        ("x: a: b", "key cannot start here", 1, 5),
        ("x:\n\t- a", "tab", 2, 1),
        ("x: *gone", "undefined alias", 1, 4),
        ('x: "open', "quoted scalar", 1, 9),
        ("x: @a", "cannot start any token", 1, 4),
        ("%YAML 3.0\n---\nx: 1", "YAML", 1, 1),
        ("a\x07b: 1", "U+0007", 1, 2),
        ("x: 1\n  y: 2", "key cannot start here", 2, 4),
        ("- a\nb: c", "block", 2, 1),
    ],
)
def test_syntax_errors_have_a_line(refused: Refused, text: str, message: str, line: int, column: int) -> None:
    """Each says what is wrong in words, and where."""
    problem = refused(text)[0]
    assert message in problem.message
    assert (problem.line, problem.column) == (line, column)


def test_a_syntax_error_does_not_hide_the_documents_before_it(refused: Refused) -> None:
    found = refused(f"{HEAD}  qso: x\n---\nx: [\n")
    assert [problem.line for problem in found] == [6, 9]


def test_a_duplicate_key_names_the_first(refused: Refused) -> None:
    (problem,) = refused(f"{HEAD}  entrypoint: again\n")
    assert (problem.line, problem.column, problem.field) == (6, 3, "spec.entrypoint")
    assert "first on line 5" in problem.message


@pytest.mark.parametrize("key", ["1", "true", "1.5", "null", "[a]", "{a: b}"])
def test_keys_are_text(refused: Refused, key: str) -> None:
    problem = refused(f"{HEAD}  config:\n    ? {key}\n    : 1\n")[0]
    assert "keys are text" in problem.message
    assert problem.line == 7


def test_on_and_no_are_keys_like_any_other() -> None:
    assert config("{on: 1, no: 2}") == {"on": 1, "no": 2}


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [ls]", "!mine 1", "!!binary aGk=", "!!set {a}"])
def test_tags_that_make_objects_are_refused(refused: Refused, tag: str) -> None:
    problem = refused(f"{HEAD}  config: {{x: {tag}}}\n")[0]
    assert "tag" in problem.message
    assert (problem.line, problem.column) == (6, 15)


@pytest.mark.parametrize("text", [".nan", ".inf", "-.Inf", "1e999", "9" * 5000, "!!int nine", "!!bool maybe"])
def test_numbers_that_json_cannot_write_are_refused(refused: Refused, text: str) -> None:
    problem = refused(f"{HEAD}  config:\n    x: {text}\n")[0]
    assert (problem.line, problem.field) == (7, "spec.config.x")


@pytest.mark.parametrize("text", [r'"a\0b"', r'"\ud800"'])
def test_characters_that_no_program_takes_are_refused(refused: Refused, text: str) -> None:
    """NUL and lone surrogates are legal YAML escapes, but no environment variable or UTF-8 file can hold them."""
    problem = refused(f"{HEAD}  envs: {{A: {text}}}\n")[0]
    assert "cannot be in text" in problem.message
    assert problem.line == 6


def test_anchors_aliases_and_merge_keys_work() -> None:
    """What a mapping says itself wins over what it merges, and the first of several merged wins."""
    document = parse_documents("""\
apiVersion: helios/v1
kind: Job
metadata: {name: x}
spec:
  entrypoint: run
  config:
    base: &base {a: 1, b: 1}
    more: &more {b: 2, c: 2, <<: *base}
    same: *base
    both: {<<: [*base, *more], a: 3}
""")[0].document
    assert isinstance(document, Job)
    assert document.spec.config["same"] == {"a": 1, "b": 1}
    assert document.spec.config["more"] == {"a": 1, "b": 2, "c": 2}
    assert document.spec.config["both"] == {"a": 3, "b": 1, "c": 2}


def test_a_merge_key_of_something_else_is_refused(refused: Refused) -> None:
    assert "<< takes a mapping" in refused(f"{HEAD}  config: {{<<: 3}}\n")[0].message


def test_an_alias_bomb_is_refused_at_once(refused: Refused) -> None:
    """Nine levels of nine aliases would be 387 million values."""
    levels = [f"    a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    (problem,) = refused("\n".join([HEAD.rstrip(), "  config:", "    a0: &a0 x", *levels, ""]))
    assert f"more than {MAX_NODES}" in problem.message
    assert problem.line > 6


def test_a_merge_bomb_is_refused_at_once(refused: Refused) -> None:
    levels = [f"    a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: 1}}" for n in range(1, 12)]
    (problem,) = refused("\n".join([HEAD.rstrip(), "  config:", "    a0: &a0 {x: 1}", *levels, ""]))
    assert "more than" in problem.message


@pytest.mark.parametrize("text", ["&a [*a]", "&a {b: *a}", "&a {<<: *a}", "&a [{b: [*a]}]"])
def test_an_alias_inside_of_itself_is_refused(refused: Refused, text: str) -> None:
    (problem,) = refused(f"{HEAD}  config:\n    x: {text}\n")
    assert "itself" in problem.message
    assert problem.line == 7


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ("{a: ", "}")])
def test_bottomless_nesting_is_refused_at_once(refused: Refused, open_: str, close: str) -> None:
    """Ten thousand levels give one clear problem, not a RecursionError; in a closed and in an open text."""
    for text in (open_ * 10_000 + close * 10_000, open_ * 10_000):
        (problem,) = refused(text)
        assert f"deeper than {MAX_DEPTH}" in problem.message
        assert problem.line == 1


def test_deep_block_nesting_through_aliases_is_refused(refused: Refused) -> None:
    """Short anchors on each other's ends add up to depth as well."""
    lines = [f"    a{n}: &a{n} " + "[" * 40 + f"*a{n - 1}" + "]" * 40 for n in range(1, 6)]
    (problem,) = refused("\n".join([HEAD.rstrip(), "  config:", "    a0: &a0 x", *lines, ""]))
    assert "deeper than" in problem.message


def test_huge_text_is_refused_before_it_is_read(refused: Refused) -> None:
    (problem,) = refused("#" * (MAX_BYTES + 1))
    assert "larger than" in problem.message


def test_too_many_documents_are_refused(refused: Refused) -> None:
    assert "documents" in refused("--- 1\n" * 1002)[-1].message


def test_empty_documents_between_others_do_not_count() -> None:
    """A leading `---` or a trailing one is no document."""
    loaded = parse_documents(f"---\n{HEAD}---\n---\n{HEAD.replace('name: x', 'name: y')}---\n")
    assert [one.document.metadata.name for one in loaded] == ["x", "y"]
    assert [one.line for one in loaded] == [2, 9]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n---\n", "\ufeff"])
def test_nothing_at_all_is_an_error(refused: Refused, text: str) -> None:
    (problem,) = refused(text)
    assert "is empty" in problem.message
    assert (problem.file, problem.line) == ("x.yaml", 1)


@pytest.mark.parametrize("text", ["hello", "[1, 2]", "3", "null"])
def test_a_document_is_a_mapping(refused: Refused, text: str) -> None:
    """Text, lists, numbers and an explicit null are not documents."""
    (problem,) = refused(text)
    assert problem.line == 1
    assert "expected a mapping" in problem.message


def test_windows_line_ends_keep_their_lines(refused: Refused) -> None:
    (problem,) = refused(f"{HEAD}  qso: x\n".replace("\n", "\r\n"))
    assert (problem.line, problem.column) == (6, 3)
