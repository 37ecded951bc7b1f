"""Waiting for a counter to rise: woken at once by this process, soon by others."""

import threading
import time
from collections.abc import Callable

from helios.store.database import Database


class Counters:
    """What this process knows of the revision and of the version of reports."""

    def __init__(self, database: Database, look: Callable[[], tuple[int, int]]) -> None:
        self._database = database
        self._look = look
        self._changed = threading.Condition()
        self._revision = 0
        self._report_version = 0
        self._looking = threading.Lock()
        self._look_again_at = 0.0

    def heard(self, revision: int | None, report_version: int | None) -> None:
        """Take note of counters somebody wrote; the callback of `Database.listen`."""
        if revision is None or report_version is None:
            revision, report_version = self._look()
        with self._changed:
            if revision > self._revision or report_version > self._report_version:
                self._revision = max(revision, self._revision)
                self._report_version = max(report_version, self._report_version)
                self._changed.notify_all()

    def wait_revision(self, after: int, timeout: float) -> int:
        return self._wait(lambda: self._revision, after, timeout)

    def wait_reports(self, after: int, timeout: float) -> int:
        return self._wait(lambda: self._report_version, after, timeout)

    def _wait(self, present: Callable[[], int], after: int, timeout: float) -> int:
        self._database.listen(self.heard)
        deadline = time.monotonic() + timeout
        while True:
            self._poll()
            with self._changed:
                pause = min(deadline - time.monotonic(), self._database.poll_s)
                if self._changed.wait_for(lambda: present() > after, max(pause, 0.0)) or pause <= 0:
                    return present()

    def _poll(self) -> None:
        """Look for what others wrote, one thread at a time and not more often than the database wants it."""
        if time.monotonic() < self._look_again_at or not self._looking.acquire(blocking=False):
            return
        try:
            self._look_again_at = time.monotonic() + self._database.poll_s
            if self._database.changed_elsewhere():
                self.heard(None, None)
        finally:
            self._looking.release()
