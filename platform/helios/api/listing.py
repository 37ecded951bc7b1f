"""Pages of a list, straight from the mirror: only the page itself is copied and written."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from helios.api.answers import rendered
from helios.api.caller import Caller, tenant_of
from helios.errors import InputError
from helios.store import Record

MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a list.

    Attributes:
        revision: of the store, as the list shows it; where to watch from.
        next: what to ask `after`, None at the end.
    """

    revision: int
    records: tuple[Record, ...]
    next: str | None

    def document(self) -> dict[str, Any]:
        return {"revision": self.revision, "items": [rendered(item) for item in self.records], "next": self.next}


@dataclass(frozen=True, slots=True)
class Filters:
    """Which records of a kind are wanted; empty texts ask for nothing.

    Attributes:
        labels: every one of these.
        changed_after: a revision.
    """

    kind: str
    labels: Mapping[str, str]
    tenant: str = ""
    state: str = ""
    changed_after: int | None = None

    def match(self, record: Record) -> bool:
        return (
            self.labels.items() <= record.labels.items()
            and (not self.tenant or tenant_of(record) == self.tenant)
            and (not self.state or record.state == self.state)
            and (self.changed_after is None or record.resource_version > self.changed_after)
        )


def page_of(caller: Caller, filters: Filters, *, after: str, limit: int) -> Page:
    """The first `limit` records behind the name `after` that match and that the caller may see."""
    mirror = caller.fleet.mirror
    revision = mirror.sync()
    records = mirror.records(filters.kind)
    found: list[Record] = []
    for record in _behind(records, after):
        if filters.match(record) and caller.sees(record):
            if len(found) == limit:
                return Page(revision, tuple(found), found[-1].name)
            found.append(record)
    return Page(revision, tuple(found), None)


def labels_of(selector: str) -> dict[str, str]:
    """Read `team=avatar,tier=gold`. Raises `InputError`."""
    labels = {}
    for part in filter(None, (piece.strip() for piece in selector.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise InputError(f"a label selector is like team=avatar,tier=gold, not {selector[:200]!r}")
        labels[key.strip()] = value.strip()
    return labels


def _behind(records: tuple[Record, ...], after: str) -> Iterator[Record]:
    start = bisect_right(records, after, key=lambda record: record.name) if after else 0
    for index in range(start, len(records)):
        yield records[index]
