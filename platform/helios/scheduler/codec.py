"""Snapshots, policies and what was decided on them, as JSON: what was recorded anywhere is decided again bit by bit.

Canonical: keys in order, no spaces that mean nothing, fields that have their defaults left out, numbers as Python
prints them (which reads back the same double), infinity as the text `Infinity`. Mappings whose keys are no text are
lists of pairs. Defaults of a policy are written all the same: a later release may have others.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from helios.errors import InputError, nearest
from helios.scheduler.cycle import Cycle
from helios.scheduler.policy import Policy
from helios.scheduler.snapshot import Snapshot
from helios.scheduler.soundness import check

FORMAT = 1
"""Of the document; one that is written by a later form is refused."""
_INFINITY = "Infinity"
_HINT = f'infinity is written as the text "{_INFINITY}", and nothing else is without end'


def canonical(document: object) -> str:
    """JSON text, the same for the same document wherever it is made."""
    return json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def record(snapshot: Snapshot, policy: Policy, cycle: Cycle) -> dict[str, Any]:
    """The document of one cycle: what was known, by what it was decided, and what was."""
    return {
        "format": FORMAT,
        "snapshot": _plain(snapshot),
        "policy": _plain(policy, full=True),
        "decisions": decided(cycle),
    }


def decided(cycle: Cycle) -> dict[str, Any]:
    """Everything that a cycle says."""
    return {
        "admits": [_plain(admit) for admit in cycle.admits],
        "changes": [{"kind": type(change).__name__, **_plain(change)} for change in cycle.changes],
        "reservations": [_plain(reservation) for reservation in cycle.reservations],
        "waits": sorted(_waits(cycle), key=canonical),
        "own": [_plain(wait) for _, wait in sorted(cycle.own.items())],
        "nextLook": _plain(cycle.next_look),
    }


def _waits(cycle: Cycle) -> Iterator[dict[str, Any]]:
    """Those that wait for the same reason in one entry: ten thousand alike are not said ten thousand times."""
    for gangs, wait in cycle.lines:
        yield {"gangs": sorted(gang.uid for gang in gangs), **_plain(wait)}


def read(document: object) -> tuple[Snapshot, Policy, dict[str, Any]]:
    """What `record` wrote: the snapshot, the policy, and what was decided.

    Raises:
        InputError: it is no such document; names the place.
    """
    if not isinstance(document, Mapping):
        raise InputError(f"expected a document with a snapshot and a policy, got {_shown(document)}")
    if document.get("format") != FORMAT:
        hint = "`helios admin snapshot` writes one"
        raise InputError(f"format: expected {FORMAT}, got {_shown(document.get('format'))}", hint=hint)
    for name in ("snapshot", "policy", "decisions"):
        if not isinstance(document.get(name), Mapping):
            raise InputError(f"{name}: expected a mapping, got {_shown(document.get(name))}")
    snapshot, policy = _read(Snapshot, document["snapshot"], "snapshot"), _read(Policy, document["policy"], "policy")
    check(snapshot, policy)
    return snapshot, policy, dict(document["decisions"])


# Writing --------------------------------------------------------------------------------------------------------------


def _plain(value: Any, *, full: bool = False) -> Any:
    """Plain JSON values of anything that a snapshot, a policy or a decision is made of; `full` leaves nothing out."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain_fields(value, full=full)
    if isinstance(value, Mapping):
        return _plain_mapping(value, full=full)
    if isinstance(value, frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, tuple | list):
        return [_plain(item, full=full) for item in value]
    if isinstance(value, StrEnum):
        return str(value)
    return _INFINITY if value == math.inf else value


def _plain_fields(value: Any, *, full: bool) -> dict[str, Any]:
    found = {field.name: (field, getattr(value, field.name)) for field in fields(value)}
    return {
        name: _plain(item, full=full) for name, (field, item) in found.items() if full or not _is_default(field, item)
    }


def _plain_mapping(value: Mapping[Any, Any], *, full: bool) -> Any:
    if all(isinstance(key, str) for key in value):
        return {str(key): _plain(item, full=full) for key, item in value.items()}
    return sorted([_plain(key), _plain(item, full=full)] for key, item in value.items())


def _is_default(field: "Field[Any]", value: Any) -> bool:
    if field.default is not MISSING:
        return bool(field.default == value)
    return field.default_factory is not MISSING and bool(field.default_factory() == value)


# Reading --------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _read(kind: Any, data: Any, where: str) -> Any:
    """The value of that type that the data says. Raises `InputError` naming the place."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType}:
        return _read_union(arguments, data, where)
    if origin is tuple:
        return _read_tuple(arguments, data, where)
    if origin is frozenset:
        return frozenset(_read(arguments[0], item, f"{where}[{index}]") for index, item in _listed(data, where))
    if origin is not None and issubclass(origin, Mapping):
        return _read_mapping(arguments, data, where)
    if is_dataclass(kind):
        return _read_fields(kind, data, where)
    return _read_scalar(kind, data, where)


def _read_fields(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise InputError(f"{where}: expected a mapping, got {_shown(data)}")
    hints = _hints(kind)
    for name in data:
        if name not in hints:
            near = nearest(str(name), hints)
            raise InputError(f"{where}: there is no field {name!r}", hint=f"did you mean {near!r}?" if near else "")
    missing = [
        field.name
        for field in fields(kind)
        if field.name not in data and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise InputError(f"{where}.{missing[0]}: is missing")
    return kind(**{name: _read(hints[name], value, f"{where}.{name}") for name, value in data.items()})


def _read_union(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and NoneType in kinds:
        return None
    rest = [kind for kind in kinds if kind is not NoneType]
    fitting = [kind for kind in rest if is_dataclass(kind) == isinstance(data, Mapping)]
    return _read((fitting or rest)[0], data, where)


def _read_tuple(kinds: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    items = list(_listed(data, where))
    if kinds[-1] is not Ellipsis and len(items) != len(kinds):
        raise InputError(f"{where}: expected {len(kinds)} values, got {len(items)}")
    of = [kinds[0]] * len(items) if kinds[-1] is Ellipsis else kinds
    return tuple(_read(kind, item, f"{where}[{index}]") for kind, (index, item) in zip(of, items, strict=True))


def _read_mapping(kinds: tuple[Any, ...], data: Any, where: str) -> dict[Any, Any]:
    key, value = kinds
    if isinstance(data, Mapping):
        return {_read(key, name, where): _read(value, item, f"{where}.{name}") for name, item in data.items()}
    pairs = [_read_tuple((key, value), pair, f"{where}[{index}]") for index, pair in _listed(data, where)]
    return dict(pairs)


def _read_scalar(kind: Any, data: Any, where: str) -> Any:
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        known = [str(one) for one in kind]
        if data not in known:
            near = nearest(str(data), known)
            raise InputError(
                f"{where}: expected one of {', '.join(known)}, got {_shown(data)}",
                hint=f"did you mean {near!r}?" if near else "",
            )
        return kind(data)
    if kind is float and data == _INFINITY:
        return math.inf
    numbers: tuple[type, ...] = (int, float) if kind is float else (kind,)
    if not isinstance(data, numbers) or (isinstance(data, bool) and kind is not bool):
        raise InputError(f"{where}: expected {_WORDS[kind]}, got {_shown(data)}")
    if kind is float and not _is_finite(data):
        raise InputError(f"{where}: expected {_WORDS[kind]}, got {_shown(data)}", hint=_HINT)
    return data


def _is_finite(number: Any) -> bool:
    """Whether it is a number that a double can be; whole numbers of JSON have no bound."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _listed(data: Any, where: str) -> Any:
    if not isinstance(data, list | tuple):
        raise InputError(f"{where}: expected a list, got {_shown(data)}")
    return enumerate(data)


def _shown(data: object) -> str:
    text = json.dumps(data, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
