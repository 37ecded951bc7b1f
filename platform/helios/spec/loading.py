"""Files, text and JSON to validated documents, with every problem at once and where it is."""

import math
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError

from helios.errors import Problem, SpecError, nearest
from helios.spec import configs
from helios.spec.base import API_VERSION
from helios.spec.kinds import KINDS, AnyDocument, Loaded
from helios.spec.problems import problems_of
from helios.spec.quantities import shown
from helios.spec.source import MAX_BYTES, MAX_DEPTH, FieldPath, Source, dotted, position_of, read_sources

STDIN = "-"
_SUFFIXES = (".yaml", ".yml")
MAX_FILES = 10_000
MAX_PROBLEMS = 200
MAX_MESSAGE = 500


def load_documents(paths: Sequence[pathlib.Path | str]) -> list[Loaded]:
    """Read and validate files, folders (all *.yaml and *.yml below) and `-` (standard input).

    Raises:
        SpecError: with every problem of every file.
    """
    loaded: list[Loaded] = []
    problems: list[Problem] = []
    for path in _files(paths, problems):
        text = _read(path, problems)
        if text is not None:
            _parse(text, _shown_path(path), loaded, problems)
    problems += _duplicates(loaded)
    if problems:
        raise SpecError(_ordered(problems))
    return loaded


def parse_documents(text: str, *, file: str = "<text>") -> list[Loaded]:
    """Validate the documents of one YAML text.

    Raises:
        SpecError: with every problem.
    """
    loaded: list[Loaded] = []
    problems: list[Problem] = []
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        problems.append(_too_large(file))
    else:
        _parse(text, file, loaded, problems)
    problems += _duplicates(loaded)
    if problems:
        raise SpecError(_ordered(problems))
    return loaded


def from_json(data: Mapping[str, Any]) -> AnyDocument:
    """Validate one document that came as JSON; `to_json` is its inverse. `spec.config` is not looked into.

    Raises:
        SpecError: with every problem; there are no lines in JSON, so `line` is 0.
    """
    problems = _not_json(data)
    document = None if problems else _document(data, None, problems)
    if document is None:
        raise SpecError(_ordered(problems))
    return document


def to_json(document: BaseModel) -> dict[str, Any]:
    """A document (or any part of one) as JSON-able data: camelCase, defaults filled, quantities in their notation."""
    return document.model_dump(mode="json", by_alias=True)


def _parse(text: str, file: str, loaded: list[Loaded], problems: list[Problem]) -> None:
    sources, stopped = read_sources(text, file)
    problems += stopped
    if not sources and not stopped:
        message = f"is empty: expected a document that begins with `apiVersion: {API_VERSION}`"
        problems.append(Problem(message, file=file, line=1, column=1))
    for source in sources:
        own: list[Problem] = []
        document = _document(source.data, source, own)
        said = {(problem.line, problem.column) for problem in source.problems}
        problems += [*source.problems, *(one for one in own if (one.line, one.column) not in said)]
        if document is not None:
            found = configs.look(document, source)
            problems += found.problems
            positions = {dotted(path): position for path, position in source.values.items()}
            loaded.append(Loaded(document, file, source.start[0], positions, found.notes))


def _document(data: object, source: Source | None, problems: list[Problem]) -> AnyDocument | None:
    if not isinstance(data, Mapping):
        problems.append(_at(source, (), f"expected a mapping with apiVersion and kind, got {shown(data)}"))
        return None
    kind = _kind(data, source, problems)
    if kind is None:
        return None
    try:
        return kind.model_validate(data, by_alias=True, by_name=False)
    except ValidationError as error:
        problems += problems_of(error, kind, data, source=source)
        problems += [_at(source, path, message, near=near) for path, near, message in kind.across(data)]
        return None


def _not_json(data: object) -> list[Problem]:
    """What YAML would not have let through: bottomless nesting, and what JSON in UTF-8 cannot write."""
    open_: list[tuple[FieldPath, object]] = [((), data)]
    problems: list[Problem] = []
    while open_:
        path, here = open_.pop()
        if len(path) > MAX_DEPTH:
            return [Problem(f"nested deeper than {MAX_DEPTH} levels", field=dotted(path[:4]))]
        if isinstance(here, Mapping):
            open_ += [((*path, _printable(str(key))), value) for key, value in here.items()]
            problems += [_not_text((*path, _printable(key)), key) for key in here if _is_broken(key)]
        elif isinstance(here, list):
            open_ += [((*path, index), value) for index, value in enumerate(here)]
        elif _is_broken(here):
            problems.append(_not_text(path, here))
        elif isinstance(here, float) and not math.isfinite(here):
            problems.append(Problem("expected a number that is finite", field=dotted(path), value=str(here)))
    return problems


def _is_broken(value: object) -> bool:
    """Whether it is text with half a surrogate pair, which JSON can escape and nothing could ever print again."""
    return isinstance(value, str) and _printable(value) != value


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _not_text(path: FieldPath, value: object) -> Problem:
    return Problem("has text that is not Unicode", field=dotted(path), value=ascii(value)[:MAX_MESSAGE])


def _kind(data: Mapping[str, Any], source: Source | None, problems: list[Problem]) -> type[AnyDocument] | None:
    """The model for the document; None where `apiVersion` or `kind` do not lead to one."""
    before = len(problems)
    version, kind = data.get("apiVersion"), data.get("kind")
    if "apiVersion" not in data:
        problems.append(_at(source, ("apiVersion",), f"is required; expected {API_VERSION}"))
    elif version != API_VERSION:
        message = f"expected {API_VERSION}, got {shown(version)}"
        problems.append(_at(source, ("apiVersion",), message, value=version))
    if "kind" not in data:
        problems.append(_at(source, ("kind",), f"is required; expected one of: {', '.join(KINDS)}"))
    elif not isinstance(kind, str) or kind not in KINDS:
        near = nearest(kind, KINDS) if isinstance(kind, str) else ""
        message = f"expected one of: {', '.join(KINDS)}; got {shown(kind)}"
        problems.append(_at(source, ("kind",), message, value=kind, near=near))
    return KINDS[kind] if len(problems) == before and isinstance(kind, str) else None


def _at(source: Source | None, path: FieldPath, message: str, *, value: object = None, near: str = "") -> Problem:
    if source is None:
        return Problem(message, field=dotted(path), value="" if value is None else shown(value), nearest=near)
    line, column = source.at(path)
    return Problem(message, source.file, line, column, dotted(path), source.text.get(path, ""), near)


def _ordered(problems: Sequence[Problem]) -> list[Problem]:
    """Each problem once, file by file, from top to bottom; short enough to read, and not too many."""
    files = list(dict.fromkeys(problem.file for problem in problems))
    by_place = sorted(problems, key=lambda one: (files.index(one.file), one.line, one.column))
    once = list({(one.file, one.field, one.message): one for one in reversed(by_place)}.values())[::-1]
    shown = [replace(one, message=_shortened(one.message)) for one in once[:MAX_PROBLEMS]]
    if len(once) > MAX_PROBLEMS:
        rest = once[MAX_PROBLEMS]
        shown.append(Problem(f"and {len(once) - MAX_PROBLEMS} more problems", rest.file, rest.line, rest.column))
    return shown


def _shortened(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 3]}..."


def _duplicates(loaded: Sequence[Loaded]) -> list[Problem]:
    first: dict[tuple[str, str], Loaded] = {}
    problems = []
    for one in loaded:
        kind, name = one.document.kind, one.document.metadata.name
        before = first.setdefault((kind, name), one)
        if before is not one:
            line, column = one.positions.get("metadata.name", (one.line, 1))
            message = f"{kind} {name!r} is already defined at {before.file}:{before.line}"
            problems.append(Problem(message, one.file, line, column, "metadata.name", name))
    return problems


def _files(paths: Sequence[pathlib.Path | str], problems: list[Problem]) -> Iterable[pathlib.Path]:
    """Each file once, in order; folders are searched, hidden ones inside them are not."""
    seen: set[str] = set()
    for given in paths:
        path = pathlib.Path(given)
        if path.is_dir():
            found = _below(path)
            if not found:
                problems.append(Problem("the folder has no *.yaml or *.yml file", file=_shown_path(path)))
        elif path.exists() or str(path) == STDIN:
            found = [path]
        else:
            problems.append(_no_such_file(path))
            continue
        if len(found) > MAX_FILES:
            problems.append(Problem(f"the folder has more than {MAX_FILES} YAML files", file=_shown_path(path)))
            continue
        for file in found:
            if (key := os.path.realpath(file)) not in seen:
                seen.add(key)
                yield file


def _below(folder: pathlib.Path) -> list[pathlib.Path]:
    found: list[pathlib.Path] = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = sorted(name for name in files if name.endswith(_SUFFIXES) and not name.startswith("."))
        found += [pathlib.Path(where, name) for name in names]
        if len(found) > MAX_FILES:
            break
    return found


def _no_such_file(path: pathlib.Path) -> Problem:
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, siblings)
    return Problem("no such file or folder", file=_shown_path(path), nearest=str(path.parent / near) if near else "")


def _read(path: pathlib.Path, problems: list[Problem]) -> str | None:
    file = _shown_path(path)
    try:
        if str(path) == STDIN:
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as stream:
                content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        problems.append(Problem(f"cannot be read: {error.strerror or error}", file=file))
        return None
    if len(content) > MAX_BYTES:
        problems.append(_too_large(file))
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = content[: error.start].decode("utf-8-sig", errors="replace")
        line, column = position_of(text, len(text))
        value = content[error.start : error.end].hex()
        problems.append(Problem("is not UTF-8 text", file=file, line=line, column=column, value=f"byte 0x{value}"))
        return None


def _too_large(file: str) -> Problem:
    return Problem(f"is larger than {MAX_BYTES // 1024} KiB", file=file, line=1, column=1)


def _shown_path(path: pathlib.Path) -> str:
    return "<stdin>" if str(path) == STDIN else str(path)
