"""The provisioner of AWS cells: checks, a Pulumi program run against a recording monitor, prices."""

import importlib.util
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import IO

from helios.errors import EngineError
from helios.ports import CellPlan
from helios.spec import Cell, to_json
from helios_infra.aws import catalog, prices
from helios_infra.registration import Registration

_TIMEOUT_S = 120
_SDK = ("pulumi", "pulumi_aws", "pulumi_kubernetes")


def _today() -> date:
    return datetime.now(UTC).date()


class AwsProvisioner:
    """`helios.ports.Provisioner` for `provider: aws`."""

    def __init__(self, *, today: Callable[[], date] = _today) -> None:
        for package in _SDK:  # found, not imported: only the program's own process pays for them
            if importlib.util.find_spec(package) is None:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        self._today = today

    def plan(self, cell: Cell, *, on_progress: Callable[[str], None] = lambda _: None) -> CellPlan:
        """What `apply` would create in an empty account, without asking AWS anything.

        Raises:
            SpecError: AWS, or the program, would refuse the cell; every problem with its field.
            EngineError: the Pulumi program failed.
        """
        today = self._today()
        on_progress("checking the cell against the catalogue")
        catalog.check(cell, today=today)
        on_progress("running the program")
        registrations = recorded(cell, on_progress)
        resources = prices.planned(registrations, cell, today=today)
        return CellPlan(cell.metadata.name, resources, prices.notes(cell, resources))


def recorded(cell: Cell, on_progress: Callable[[str], None]) -> list[Registration]:
    """What the cell's program registers, run in a process of its own because the SDK's state is global.

    Raises:
        EngineError: it fails; the message has its last words.
    """
    command = [sys.executable, "-m", "helios_infra.preview"]
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True
        ) as program,
    ):
        assert program.stdin is not None
        assert program.stdout is not None
        limit = threading.Timer(_TIMEOUT_S, program.kill)
        limit.start()
        try:
            with program.stdin as stdin:
                json.dump(to_json(cell), stdin)
            found = []
            for registration in _answers(program.stdout):
                found.append(registration)
                on_progress(f"{len(found)} resources, {registration.name}")
            code = program.wait()
        except BrokenPipeError:
            code = program.wait()
        finally:
            in_time = limit.is_alive()
            limit.cancel()
            program.kill()
        if not in_time:
            raise EngineError(f"the Pulumi program of cell {cell.metadata.name} did not end within {_TIMEOUT_S:g} s")
        if code:
            complaints.seek(0)
            last = (complaints.read().strip().splitlines() or ["it said nothing"])[-1]
            raise EngineError(f"the Pulumi program of cell {cell.metadata.name} failed: {last[:500]}")
    return found


def _answers(lines: IO[str]) -> Iterator[Registration]:
    for line in lines:
        answer = json.loads(line)
        if "resource" in answer:
            fields = answer["resource"]
            yield Registration(**{**fields, "dependencies": tuple(fields["dependencies"])})
