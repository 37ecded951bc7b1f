"""Files that `helios admin snapshot` wrote, as `helios admin replay` and `helios simulate --snapshot` read them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from helios.cli.output import err
from helios.errors import InputError, nearest

if TYPE_CHECKING:
    from helios.scheduler import Policy, Snapshot  # numpy: only what reads such a file pays for it

FIELDS = ("format", "snapshot", "policy", "decisions")


def recorded(file: Path) -> "tuple[Snapshot, Policy, dict[str, Any]]":
    """The snapshot, the policy and what was decided. Where a gang runs is told if no cell lists it; that is no mistake.

    Raises:
        InputError: there is no such document in the file; names the place.
    """
    from helios.scheduler.codec import FORMAT, read

    document = _json_of(file)
    if isinstance(document, Mapping) and document.get("format") == FORMAT:
        for name in document:
            if name not in FIELDS:
                near = nearest(name, FIELDS)
                hint = f"did you mean {near!r}?" if near else f"known are {', '.join(FIELDS)}"
                raise InputError(f"{file}: there is no field {name!r}", hint=hint)
    snapshot, policy, decisions = read(document)
    for line in _elsewhere(snapshot):
        err().print(f"{escape(str(file))}: {escape(line)}", soft_wrap=True)
    return snapshot, policy, decisions


def _json_of(file: Path) -> object:
    """The JSON document in a file. Raises `InputError` where there is none, or a key is there twice, with the place."""
    twice: list[tuple[dict[str, Any], str]] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice.append((found, next(name for name in names if names.count(name) > 1)))
        return found

    try:
        document: object = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=once)
        if twice:  # the last to be closed has not been lost to another's repetition
            repeated, name = twice[-1]
            where = next(place for place, one in _mappings(document, "") if one is repeated)
            raise InputError(f"{file}: {where}{'.' if where else ''}{name}: is there twice")
    except OSError as error:
        hint = "`helios admin snapshot FILE` writes one"
        raise InputError(f"{file}: cannot be read: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is no text in UTF-8 ({error.reason} at byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{file}:{error.lineno}:{error.colno}: is no JSON: {error.msg}") from error
    except RecursionError as error:
        raise InputError(f"{file}: is nested too deeply for a snapshot") from error
    return document


def _mappings(value: object, where: str) -> Iterator[tuple[str, object]]:
    """Every mapping of a document with its place in it, like `snapshot.cells[0]`."""
    if isinstance(value, dict):
        yield where, value
        for name, item in value.items():
            yield from _mappings(item, f"{where}.{name}" if where else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _mappings(item, f"{where}[{index}]")


def _elsewhere(snapshot: "Snapshot") -> Iterator[str]:
    """Gangs that run where no cell lists a node: as after a node was taken away, or by a mistake in an edited file."""
    nodes = {cell.name: {node.name for node in cell.nodes} for cell in snapshot.cells}
    for index, gang in enumerate(snapshot.running):
        where = f"snapshot.running[{index}]"
        listed = nodes.get(gang.cell)
        if listed is None:
            yield f"{where}.cell: no cell is named {gang.cell!r}{_meant(gang.cell, nodes)}"
            continue
        for place, name in enumerate(gang.nodes):
            if name not in listed:
                yield f"{where}.nodes[{place}]: cell {gang.cell!r} lists no node {name!r}{_meant(name, listed)}"
                break


def _meant(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f"; did you mean {near!r}?" if near else ""
