"""What every store promises; SQLite here, other databases behind the same words."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from helios.spec import AnyDocument
from helios.store.records import Applied, Event, Record


class Store(Protocol):
    """Thread-safe. What a write returned is durable; what it did not return may or may not have happened."""

    def revision(self) -> int:
        """The number of the last write, 0 in an empty store. Every write of a record or event raises it."""
        ...

    def wait(self, after_revision: int, timeout: float) -> int:
        """Block until `revision() > after_revision` or `timeout` seconds passed; return the revision then."""
        ...

    def find(self, kind: str, name: str) -> Record | None: ...

    def get(self, kind: str, name: str) -> Record:
        """Like `find`; raises `NotFoundError` with the nearest name."""
        ...

    def records(self, kind: str, *, labels: Mapping[str, str] | None = None) -> tuple[Record, ...]:
        """All records of a kind that carry every given label, by name."""
        ...

    def apply(self, document: AnyDocument, *, idempotency_key: str = "", replacing: Record | None = None) -> Applied:
        """Create the object, or give it this spec, labels and annotations.

        The same content again is `unchanged` and writes nothing. A key seen before answers with the object as it is
        now and writes nothing, whatever happened since. With `replacing`, a new object (new uid, empty status) takes
        the place of that version of the old one.

        Raises:
            ConflictError: the key came with other content before, the object is being deleted, or `replacing` is not
                its present version.
            NotFoundError: the key was used, and what it made is gone.
        """
        ...

    def create(self, record: Record, *, events: Iterable[Event] = ()) -> Record:
        """Write a record that is not there yet; sets uid, versions and time. Raises `ConflictError` where it is."""
        ...

    def save(self, record: Record, *, events: Iterable[Event] = ()) -> Record:
        """Write the next version of a record, and events, in one step; a changed spec raises the generation.

        Nothing changed and no events: writes nothing.

        Raises:
            ConflictError: the record is gone or was written since `record.resource_version`.
        """
        ...

    def request_delete(self, kind: str, name: str) -> Record:
        """Ask for deletion: gone at once without finalizers, else marked. Raises `NotFoundError`."""
        ...

    def remove(self, record: Record) -> None:
        """Take the record away, compare-and-swap. Its events stay. Raises `ConflictError`."""
        ...

    def add_events(self, events: Iterable[Event]) -> None: ...

    def events(
        self, *, kind: str | None = None, name: str | None = None, after: int = 0, limit: int = 1000
    ) -> tuple[Event, ...]:
        """Events in the order they were written, numbers above `after`, at most `limit` of them."""
        ...

    def close(self) -> None: ...
