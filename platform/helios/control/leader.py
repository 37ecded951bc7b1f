"""Who leads: one replica at a time, by a lease whose token fences whatever an earlier leader still writes.

Time is reckoned by each candidate for itself: a lease whose renewals stood still for its term, by the candidate's own
monotonic clock, is free. So clocks that disagree, or jump, elect nobody twice. A leader that was paused past its term
finds out at its next write: the store refuses it.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from helios.errors import ConflictError, FencedError, HeliosError
from helios.store import Lease, Store

TERM_S = 5.0
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Sighting:
    lease: Lease | None
    at: float


class Elector:
    """A candidate for one lease.

    Args:
        holder: who this is; unique among the candidates. What an earlier process of this name held need not run out.
        term_s: how long a lease stands without a renewal; failover takes this and a third more at the most.
        sole: nobody else can be running (the state folder is locked), so a lease of an earlier process is free.
    """

    def __init__(
        self, store: Store, name: str, holder: str, *, term_s: float = TERM_S, address: str = "", sole: bool = False
    ) -> None:
        self._store = store
        self._name = name
        self._holder = holder
        self._term_s = term_s
        self._address = address
        self._sole = sole
        self._sighting: _Sighting | None = None

    def run(self, stop: threading.Event, lead: Callable[[Lease, threading.Event], None]) -> None:
        """Campaign until `stop`; whenever elected, call `lead(lease, lost)` and renew until it returns.

        `lost` is set when the lease is not held any more, or `stop` is: `lead` is to return soon then.
        """
        every = self._term_s / 3
        while not stop.is_set():
            try:
                lease = self.try_take()
            except HeliosError as error:
                _log.warning("lease %s: %s", self._name, error.message)
                lease = None
            if lease is None:
                stop.wait(min(every, 0.5))
                continue
            _log.info("lease %s: %s leads with token %d", self._name, self._holder, lease.token)
            self._hold(lease, stop, lead)

    def try_take(self) -> Lease | None:
        """Take the lease where it is free by all that was seen so far; None where it is not."""
        seen = self._store.lease(self._name)
        now = time.monotonic()
        if not self._is_free(seen, now):
            return None
        try:
            return self._store.take_lease(
                self._name, self._holder, term_s=self._term_s, seen=seen, address=self._address
            )
        except ConflictError:  # somebody else was quicker, or its holder lives
            return None

    def _is_free(self, seen: Lease | None, now: float) -> bool:
        if seen is None or not seen.holder or self._sole:
            return True
        last = self._sighting
        if last is None or last.lease != seen:
            self._sighting = _Sighting(seen, now)
            # At the first look, a lease under our own name is that of the process whose place we took.
            return last is None and seen.holder == self._holder
        return now - last.at >= seen.term_s

    def _hold(self, lease: Lease, stop: threading.Event, lead: Callable[[Lease, threading.Event], None]) -> None:
        lost = threading.Event()

        def leading() -> None:
            try:
                lead(lease, lost)
            except FencedError:
                _log.warning("lease %s: %s was replaced while it led", self._name, self._holder)
            except Exception:  # noqa: BLE001 - said, and the lease is given up: another replica may do better
                _log.exception("lease %s: %s cannot lead", self._name, self._holder)
            finally:
                lost.set()

        worker = threading.Thread(target=leading, name="helios-lead", daemon=True)
        worker.start()
        held = self._renew(lease, stop, lost)
        lost.set()
        worker.join()
        if held is not None:
            self._release(held)

    def _renew(self, lease: Lease, stop: threading.Event, lost: threading.Event) -> Lease | None:
        """Renew until there is no point any more; the lease as last renewed, or None where it is another's."""
        renewed = time.monotonic()
        while not stop.is_set() and not lost.wait(self._term_s / 3):
            try:
                lease = self._store.renew_lease(lease)
                renewed = time.monotonic()
            except FencedError:
                return None
            except HeliosError as error:
                _log.warning("lease %s cannot be renewed: %s", self._name, error.message)
                if time.monotonic() - renewed >= self._term_s:
                    return None
        return lease

    def _release(self, lease: Lease) -> None:
        try:
            self._store.release_lease(lease)
        except HeliosError as error:
            _log.warning("lease %s runs out by itself: %s", self._name, error.message)
