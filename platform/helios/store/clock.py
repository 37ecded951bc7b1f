"""Time as records hold it: ISO 8601 text in UTC with milliseconds; as code reckons it: seconds since the epoch."""

import time
from datetime import UTC, datetime


class SystemClock:
    """The machine's own clock, as a `helios.ports.Clock`."""

    def now(self) -> float:
        return time.time()


def timestamp(seconds_since_epoch: float) -> str:
    """`2026-11-21T10:14:06.250Z`."""
    moment = datetime.fromtimestamp(seconds_since_epoch, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(text: str) -> float:
    """Seconds since the epoch of what `timestamp` wrote."""
    return datetime.fromisoformat(text).timestamp()
