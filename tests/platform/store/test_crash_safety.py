"""A process that is killed while it writes loses nothing that it was told is written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from helios.store import Gone, Record, open_store

THREADS = 8
WRITER = """
import sys
import threading
from pathlib import Path
from helios.store import Event, Record, open_store

place = sys.argv[1]
store = open_store(place if "://" in place else Path(place))
say = threading.Lock()

def write(thread):
    number = 0
    while True:
        number += 1
        name = f"job-{thread}-{number}"
        record = store.create(Record("Job", name, status={"n": number}))
        store.save(record.with_status(state="Queued"), events=[Event("Job", name, record.uid, "Queued", "waits")])
        if number % 3 == 0:
            gone = store.create(Record("Job", f"gone-{thread}-{number}"))
            store.remove(gone)
        with say:
            print(thread, number, flush=True)

for thread in range(int(sys.argv[2])):
    threading.Thread(target=write, args=(thread,)).start()
"""


def test_kill_during_group_commits_loses_no_acknowledged_write(place: Path | str) -> None:
    """SIGKILL while threads share transactions: all that was acknowledged is there, whole, and in one order."""
    acknowledged = _write_until_killed(place, at_least=60)
    store = open_store(place)
    records = {record.name: record for record in store.records("Job")}
    queued = [event for event in store.events(limit=100_000) if event.reason == "Queued"]
    for thread, last in acknowledged.items():
        for number in range(1, last + 1):
            assert records[f"job-{thread}-{number}"].state == "Queued"
            assert f"gone-{thread}-{number}" not in records
    # The status and its event are one write: never one without the other.
    assert len(queued) == sum(record.state == "Queued" for record in records.values())
    changes = store.changes(0, limit=100_000)
    removed = {item.name for item in changes.items if isinstance(item, Gone)}
    assert {f"gone-{thread}-{n}" for thread, last in acknowledged.items() for n in range(3, last + 1, 3)} <= removed
    assert {item.name: item for item in changes.items if isinstance(item, Record)} == records
    assert store.create(Record("Job", "after")).resource_version == changes.revision + 1
    store.close()


def _write_until_killed(place: Path | str, *, at_least: int) -> dict[int, int]:
    """The last number that each thread of the writer said is written."""
    command = [sys.executable, "-c", WRITER, str(place), str(THREADS)]
    acknowledged: dict[int, int] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            thread, number = map(int, line.split())
            acknowledged[thread] = number
            if sum(acknowledged.values()) == at_least:
                os.kill(writer.pid, signal.SIGKILL)
    assert writer.returncode == -signal.SIGKILL
    assert len(acknowledged) > 1
    return acknowledged
