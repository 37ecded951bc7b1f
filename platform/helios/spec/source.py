"""YAML text to plain data that knows where each value was written.

YAML 1.2's core rules decide what a plain scalar is: only `true` and `false` are booleans (`no`, `on` and `NO` are
text), `1:30` is text, dates are text. Anchors, aliases and merge keys work; tags that make objects do not. Everything
is bounded, so that no file can take the reader down: bytes, nesting, and nodes after aliases are written out.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from helios.errors import Problem
from helios.spec.quantities import shown

MAX_BYTES = 1024 * 1024
MAX_NODES = 20_000
MAX_DEPTH = 64
MAX_DOCUMENTS = 1_000
MAX_DIGITS = 400
MAX_SHOWN = 80

FieldPath = tuple[str | int, ...]
Position = tuple[int, int]

_CORE = "tag:yaml.org,2002:"
_TAGS = {_CORE + name for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}


@dataclass(frozen=True, slots=True)
class Source:
    """One YAML document as plain data, with 1-based (line, column) of every key and value by path.

    Attributes:
        text: the values as they were written, by path; block mappings and lists are left out.
        problems: what is wrong with the YAML itself (duplicate keys, tags, numbers that are none).
    """

    file: str
    data: Any
    start: Position
    keys: Mapping[FieldPath, Position]
    values: Mapping[FieldPath, Position]
    text: Mapping[FieldPath, str]
    problems: tuple[Problem, ...] = ()

    def nearest_path(self, path: FieldPath) -> FieldPath:
        """The longest beginning of `path` that is in the document."""
        while path and path not in self.values:
            path = path[:-1]
        return path

    def at(self, path: FieldPath, *, key: bool = False) -> Position:
        """Where the value (or its key) is, or what is nearest above it."""
        known = self.nearest_path(path)
        if not known:
            return self.start
        if key or known != path:
            return self.keys.get(known, self.values[known])
        return self.values[known]


def dotted(path: FieldPath) -> str:
    """A path as people write it: `spec.nodePools[0].name`, `spec.envs["a.b"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif len(part) > MAX_SHOWN:
            text += f"[{json.dumps(_short(part), ensure_ascii=False)}]"
        elif re.fullmatch(r"[\w-]+", part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
    return text


def is_secret(path: FieldPath) -> bool:
    """Whether the value at `path` belongs to `secrets`; errors do not repeat what may be a misplaced secret."""
    return "secrets" in path[:-1]


def read_sources(text: str, file: str) -> tuple[list[Source], list[Problem]]:
    """Every document of the text that is not empty, and why reading stopped, if it did before the end."""
    sources: list[Source] = []
    try:
        sources.extend(_Builder(file, text).build(node) for node in _compose(text) if not _is_nothing(node))
    except _LimitError as error:
        return sources, [Problem(error.args[0], file=file, line=error.line, column=error.column)]
    except ReaderError as error:
        line, column = position_of(text, error.position)
        message = f"the character {_character(error.character)} cannot be in YAML text"
        return sources, [Problem(message, file=file, line=line, column=column)]
    except yaml.MarkedYAMLError as error:
        return sources, [_syntax_problem(error, text, file)]
    return sources, []


def position_of(text: str, offset: int) -> Position:
    """1-based line and column of a character offset."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


class _LimitError(Exception):
    def __init__(self, message: str, mark: yaml.Mark) -> None:
        super().__init__(message)
        self.line = mark.line + 1
        self.column = mark.column + 1


class _CoreResolver(BaseResolver):
    """What a plain scalar is, by YAML 1.2's core schema, with 1.1's merge key."""


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^(?:[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+0123456789.",
    ),
    ("merge", r"^(?:<<)$", "<"),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
):
    _CoreResolver.add_implicit_resolver(
        _CORE + _tag, re.compile(_pattern), [*_first.replace("\0", ""), *([""] if "\0" in _first else [])]
    )


class _Composer(Reader, Scanner, Parser, Composer, _CoreResolver):
    """PyYAML's composer, with a bound on how deep and how much."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _CoreResolver.__init__(self)
        self._depth = 0
        self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int | yaml.Node | None) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stubs leave its types out
        self._depth += 1
        self._nodes += 1
        if self._depth > MAX_DEPTH:
            raise _LimitError(f"nested deeper than {MAX_DEPTH} levels", mark)
        if self._nodes > MAX_NODES:
            raise _LimitError(f"more than {MAX_NODES} values in one document", mark)
        node = super().compose_node(parent, index)  # type: ignore[arg-type]  # the stub forgets the root's None
        self._depth -= 1
        return node


def _compose(text: str) -> Iterator[yaml.Node]:
    composer = _Composer(text)
    try:
        count = 0
        while composer.check_node():
            composer._nodes = 0  # noqa: SLF001  # the bound is for one document
            node = composer.get_node()
            count += 1
            assert node is not None
            if count > MAX_DOCUMENTS:
                raise _LimitError(f"more than {MAX_DOCUMENTS} documents in one file", node.start_mark)
            yield node
    finally:
        composer.dispose()


class _Builder:
    """Writes one node tree out as plain data."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._text = text
        self._keys: dict[FieldPath, Position] = {}
        self._values: dict[FieldPath, Position] = {}
        self._written: dict[FieldPath, str] = {}
        self._problems: list[Problem] = []
        self._open: set[int] = set()
        self._count = 0

    def build(self, node: yaml.Node) -> Source:
        data = self._value(node, ())
        return Source(
            self._file, data, _start(node), self._keys, self._values, self._written, tuple(self._problems)
        )  # fmt: skip

    def _value(self, node: yaml.Node, path: FieldPath) -> Any:
        self._count += 1
        if self._count > MAX_NODES:
            raise _LimitError(f"more than {MAX_NODES} values once aliases are written out", node.start_mark)
        if len(path) > MAX_DEPTH:
            raise _LimitError(f"nested deeper than {MAX_DEPTH} levels once aliases are written out", node.start_mark)
        if id(node) in self._open:
            raise _LimitError("an alias points to something that it is itself a part of", node.start_mark)
        self._values[path] = _start(node)
        if node.tag not in _TAGS:
            self._problem(
                f"the tag {_short(node.tag.replace(_CORE, '!!'))} is not supported; write plain values", node, path
            )
            return None
        if isinstance(node, yaml.CollectionNode) and node.flow_style:
            self._written[path] = _short(self._text[node.start_mark.index : node.end_mark.index].partition("\n")[0])
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
            assert isinstance(node, yaml.ScalarNode)
            return self._scalar(node, path)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        own: dict[str, int] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _CORE + "merge":
                merged.append(value_node)
                continue
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in own:
                self._problem(f"duplicate key {shown(key)}, first on line {own[key]}", key_node, (*path, key))
                continue
            own[key] = key_node.start_mark.line + 1
            self._keys[*path, key] = _start(key_node)
            result[key] = self._value(value_node, (*path, key))
        for value_node in merged:
            self._merge(value_node, path, result)
        return result

    def _merge(self, node: yaml.Node, path: FieldPath, into: dict[str, Any]) -> None:
        """Add what `<<` refers to, where the mapping does not say it itself."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in parts:
            self._count += 1
            if not isinstance(part, yaml.MappingNode):
                self._problem("<< takes a mapping or a list of mappings", part, path)
                continue
            if id(part) in self._open:
                raise _LimitError("an alias points to something that it is itself a part of", part.start_mark)
            self._open.add(id(part))
            nested = [value for key, value in part.value if key.tag == _CORE + "merge"]
            for key_node, value_node in part.value:
                if key_node.tag == _CORE + "merge":
                    continue
                key = self._key(key_node, path)
                if key is not None and key not in into:
                    self._keys[*path, key] = _start(key_node)
                    into[key] = self._value(value_node, (*path, key))
            for value_node in nested:
                self._merge(value_node, path, into)
            self._open.discard(id(part))

    def _key(self, node: yaml.Node, path: FieldPath) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == _CORE + "str":
            return self._checked(node, path)
        if isinstance(node, yaml.ScalarNode):
            self._problem(f'keys are text; quote it: "{_short(node.value)}"', node, path)
        else:
            self._problem("keys are text, not mappings or lists", node, path)
        return None

    def _scalar(self, node: yaml.ScalarNode, path: FieldPath) -> Any:
        self._written[path] = self._text[node.start_mark.index : node.end_mark.index]
        name = node.tag.removeprefix(_CORE)
        if name in ("str", "merge"):
            return self._checked(node, path)
        if name == "null":
            return None
        if name == "bool" and node.value.lower() in ("true", "false"):
            return node.value.lower() == "true"
        number = _number(node.value, name)
        if number is None:
            self._problem(f"expected a number that is finite and at most {MAX_DIGITS} digits long", node, path)
        return number

    def _checked(self, node: yaml.ScalarNode, path: FieldPath) -> str:
        """The text, unless it cannot be stored or handed to a program."""
        value = str(node.value)
        bad = next((char for char in value if char == "\0" or 0xD800 <= ord(char) <= 0xDFFF), None)
        if bad is None:
            return value
        self._problem(f"the character {_character(bad)} cannot be in text", node, path)
        return "".join(char for char in value if char != "\0" and not 0xD800 <= ord(char) <= 0xDFFF)

    def _problem(self, message: str, node: yaml.Node, path: FieldPath) -> None:
        line, column = _start(node)
        written = self._text[node.start_mark.index : node.end_mark.index].partition("\n")[0]
        value = "" if is_secret(path) else _short(written)
        self._problems.append(Problem(message, self._file, line, column, dotted(path), value))


def _is_nothing(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _CORE + "null" and not node.value


def _start(node: yaml.Node) -> Position:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _short(text: str, limit: int = MAX_SHOWN) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _number(text: str, name: str) -> int | float | None:
    if len(text) > MAX_DIGITS:
        return None
    try:
        number: int | float = (
            int(text, 0) if name == "int" else float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        )
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _character(char: str | int) -> str:
    code = char if isinstance(char, int) else ord(char[0])
    return f"U+{code:04X}"


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    message = str(error.problem or error.context or "not YAML")
    if "'\\t'" in message:
        message = "a tab cannot indent YAML; use spaces"
    elif "mapping values are not allowed" in message:
        message = "a key cannot start here: check the indentation, and quote text that has ': ' in it"
    else:
        begun = error.context_mark
        context = f" ({error.context}, begun on line {begun.line + 1})" if error.context and begun else ""
        message = f"not valid YAML: {message}{context}"
    lines = text.splitlines()
    value = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    return Problem(message, file=file, line=line, column=column, value=_short(value))
