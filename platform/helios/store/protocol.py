"""What every store promises. SQLite and PostgreSQL keep it with the same words, and one test suite holds both to it."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, Self

from helios.spec import AnyDocument
from helios.store.records import (
    Actor,
    Admission,
    Allocation,
    Applied,
    AuditEntry,
    Changes,
    Event,
    Fence,
    Lease,
    Record,
    StoredReport,
)


class Store(Protocol):
    """Thread-safe, and shared by processes. What a write returned is durable; what it did not may or may not be.

    Writes of all processes have one order, that of their revisions: whoever has seen revision n has seen all before it.
    Writes that threads of one process ask for at the same time share a transaction.
    """

    # Views of the same store ------------------------------------------------------------------------------------------

    def acting(self, *, fence: Fence | None = None, actor: Actor | None = None) -> Self:
        """A view whose writes carry a fence, and an actor for the audit log.

        Every write through a fenced view raises `FencedError` once the lease has another holder. Every write through a
        view with an actor leaves an audit entry in the same transaction.
        """
        ...

    # Change -----------------------------------------------------------------------------------------------------------

    def revision(self) -> int:
        """The number of the last write, 0 in an empty store. Every write of a record or event raises it."""
        ...

    def wait(self, after_revision: int, timeout: float) -> int:
        """Block until `revision() > after_revision` or `timeout` seconds passed; return the revision then."""
        ...

    def changes(self, after: int, *, limit: int = 5000) -> Changes:
        """What changed after a revision, oldest first, at most `limit` items.

        From 0 it always answers, with everything there is; where history was compacted, in one answer whatever `limit`.

        Raises:
            CompactedError: deletions of that time are forgotten, or the store never came to that revision (it was
                restored); read everything anew, from 0.
        """
        ...

    # Records ----------------------------------------------------------------------------------------------------------

    def find(self, kind: str, name: str) -> Record | None: ...

    def get(self, kind: str, name: str) -> Record:
        """Like `find`; raises `NotFoundError` with the nearest name."""
        ...

    def records(self, kind: str, *, labels: Mapping[str, str] | None = None) -> tuple[Record, ...]:
        """All records of a kind that carry every given label, by name."""
        ...

    def apply(
        self,
        document: AnyDocument,
        *,
        idempotency_key: str = "",
        replacing: Record | None = None,
        admission: Admission | None = None,
    ) -> Applied:
        """Create the object, or give it this spec, labels and annotations, where `admission` lets it in.

        The same content again is `unchanged` and writes nothing. A key seen before answers with the object as it is
        now and writes nothing, whatever happened since. With `replacing`, a new object (new uid, empty status) takes
        the place of that version of the old one.

        Raises:
            ConflictError: the key came with other content before, the object is being deleted, or `replacing` is not
                its present version.
            NotFoundError: the key was used, and what it made is gone.
        """
        ...

    def create(self, record: Record, *, events: Iterable[Event] = (), allocations: Iterable[Allocation] = ()) -> Record:
        """Write a record that is not there yet; sets uid, versions and time. Raises `ConflictError` where it is.

        Its uid is set in the events, and in allocations without one.
        """
        ...

    def save(self, record: Record, *, events: Iterable[Event] = (), allocations: Iterable[Allocation] = ()) -> Record:
        """Write a record's next version, its events and allocations in one step; another spec raises the generation.

        Nothing changed and nothing else to write: writes nothing.

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

    # Events and audit -------------------------------------------------------------------------------------------------

    def add_events(self, events: Iterable[Event]) -> None: ...

    def events(
        self, *, kind: str | None = None, name: str | None = None, after: int = 0, limit: int = 1000, last: bool = False
    ) -> tuple[Event, ...]:
        """Events in the order they were written, numbers above `after`, at most `limit`: the first, or the last."""
        ...

    def add_audit(self, entry: AuditEntry) -> None:
        """Note what was refused; what was written is noted with the write (`acting`)."""
        ...

    def audit(
        self, *, actor: str = "", kind: str = "", name: str = "", after: int = 0, limit: int = 1000
    ) -> tuple[AuditEntry, ...]:
        """Audit entries, oldest first, numbers above `after`."""
        ...

    # Leases -----------------------------------------------------------------------------------------------------------

    def lease(self, name: str) -> Lease | None: ...

    def take_lease(self, name: str, holder: str, *, term_s: float, seen: Lease | None, address: str = "") -> Lease:
        """Become its holder under the next token, compare-and-swap on what was seen (None: nobody ever held it).

        Raises `ConflictError` where it was renewed or taken meanwhile.
        """
        ...

    def renew_lease(self, lease: Lease) -> Lease:
        """Raises `FencedError` where another holder has taken it."""
        ...

    def release_lease(self, lease: Lease) -> None:
        """Let the next candidate take it at once; nothing where it is another's already."""
        ...

    # Agents -----------------------------------------------------------------------------------------------------------

    def put_report(self, cell: str, *, generation: int, sequence: int, body: Mapping[str, object]) -> None:
        """Keep the newest report of a cell. One of the same generation that is not newer is left out.

        Raises `FencedError` for a lower generation than was heard before. Not part of the revision.
        """
        ...

    def reports(self, *, after: int = 0) -> tuple[StoredReport, ...]:
        """The newest report of every cell that has one with a version above `after`, by version."""
        ...

    def wait_reports(self, after: int, timeout: float) -> int:
        """Block until there is a report with a version above `after`, or `timeout` passed; the highest version then."""
        ...

    def want_log(self, cell: str, uid: str, epoch: int, *, offset: int, ttl_s: float) -> None:
        """Ask the cell for log bytes from `offset` on, for a while; raising the revision only where it is news."""
        ...

    def log_wants(self, cell: str) -> tuple[tuple[str, int, int], ...]:
        """What is wanted of the cell and did not expire: (uid, epoch, offset that is not here yet)."""
        ...

    def put_log(self, uid: str, epoch: int, *, offset: int, data: bytes, ended: bool) -> None:
        """Keep log bytes for a while; what overlaps with what is here is cut. Wakes those who wait for a change."""
        ...

    def read_log(self, uid: str, epoch: int, *, offset: int) -> tuple[bytes, bool]:
        """Bytes from `offset` on that are here (at most 1 MiB), and whether the log is known to end after them."""
        ...

    # Accounting -------------------------------------------------------------------------------------------------------

    def allocations(
        self, *, since: float = 0.0, until: float | None = None, open_only: bool = False
    ) -> Iterator[Allocation]:
        """Allocations that were held at any time between the two, by opening time."""
        ...

    # Care -------------------------------------------------------------------------------------------------------------

    def compact(self, *, before: float) -> Mapping[str, int]:
        """Forget tombstones, idempotency keys and kept logs older than `before`; how many of each. Events stay."""
        ...

    def backup(self, path: Path) -> None:
        """Write everything, as of one revision, into one file that `restore` of either database reads.

        Everything but who wants to read which log, which is asked again within seconds.

        Raises `ConflictError` where the file exists, `NoSpaceError` where the disk is full; nothing is left half done.
        """
        ...

    def restore(self, path: Path) -> None:
        """Fill an empty store from a backup. Raises `ConflictError` where it is not empty, `InputError` for no backup.

        Leases are not restored, and their tokens go on above those of the backup.
        """
        ...

    def close(self) -> None: ...
