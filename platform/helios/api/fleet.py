"""What the API reads from: the mirror for what is, the store for what was."""

from collections.abc import Iterator
from dataclasses import dataclass

from helios.errors import CompactedError
from helios.store import Gone, Record, Store
from helios.store.mirror import Mirror

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Fleet:
    """Records of every kind, in memory and current."""

    store: Store
    mirror: Mirror

    def fresh(self, kind: str, name: str) -> Record | None:
        """A record as of now: whatever any replica wrote before this call is in it."""
        self.mirror.sync()
        return self.mirror.find(kind, name)

    def cached(self, kind: str, name: str) -> Record | None:
        """A record as of a moment ago, without a look at the store."""
        return self.mirror.find(kind, name)

    def records(self, kind: str) -> tuple[Record, ...]:
        """All of a kind by name, as of the last look."""
        return self.mirror.records(kind)

    def changes(self, kind: str, after: int) -> Iterator[Record | Gone]:
        """What changed of a kind after a revision, oldest first, up to the mirror's revision and maybe beyond.

        Raises:
            CompactedError: it is too long ago.
        """
        try:
            yield from self.mirror.changed(kind, after)
        except CompactedError:  # longer ago than memory reaches: the store may still know
            yield from self._stored_changes(kind, after)

    def _stored_changes(self, kind: str, after: int) -> Iterator[Record | Gone]:
        while True:
            changes = self.store.changes(after, limit=_PAGE)
            yield from (item for item in changes.items if item.kind == kind)
            if changes.revision == after or not changes.items:
                return
            after = changes.revision


def revision_of(item: Record | Gone) -> int:
    return item.resource_version if isinstance(item, Record) else item.revision
