"""A process that is killed while it writes loses nothing that it was told is written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from helios.store import open_store

WRITER = """
import sys
from pathlib import Path
from helios.store import Event, Record, open_store

store = open_store(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    name = f"job-{number}"
    record = store.create(Record("Job", name, status={"n": number}))
    store.save(record.with_status(state="Queued"), events=[Event("Job", name, record.uid, "Queued", "waits")])
    print(number, flush=True)
"""


def test_kill_while_writing_loses_no_acknowledged_write(tmp_path: Path) -> None:
    """SIGKILL in the middle of writing, all that was acknowledged is there, and whole."""
    path = tmp_path / "helios.db"
    acknowledged = _write_until_killed(path, at_least=25)
    store = open_store(path)
    records = {record.name: record for record in store.records("Job")}
    queued = [event for event in store.events(limit=100_000) if event.reason == "Queued"]
    for number in range(1, acknowledged + 1):
        assert records[f"job-{number}"].state == "Queued"
    # The status and its event are one write: never one without the other.
    assert len(queued) == sum(record.state == "Queued" for record in records.values())
    assert store.revision() >= 2 * acknowledged
    store.close()


def _write_until_killed(path: Path, *, at_least: int) -> int:
    """The last number that the writer said is written."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = 0
        for line in writer.stdout:
            acknowledged = int(line)
            if acknowledged == at_least:
                os.kill(writer.pid, signal.SIGKILL)
    assert writer.returncode == -signal.SIGKILL
    return acknowledged
