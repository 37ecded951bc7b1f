"""Faults injected by hand: through `SimulatedDriver.inject`, or as lines of `faults.jsonl` in the cell's folder."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from helios.spec.base import Duration, Model
from helios.spec.workload import Reason

FILE = "faults.jsonl"
_log = logging.getLogger(__name__)


class KillNode(Model):
    """The node is gone, and whatever ran there."""

    fault: Literal["KillNode"] = "KillNode"
    node: str
    """Name, or a pattern like `east-h100-1?`."""
    back_after: Duration | None = Field(default=None, gt=0)
    """When it comes back; left out, when somebody revives it."""


class PreemptNode(Model):
    """The node's provider announces that it takes the node back, and does."""

    fault: Literal["PreemptNode"] = "PreemptNode"
    node: str
    """Name, or a pattern."""
    notice: Duration = 120.0
    """Time from the notice to the loss."""
    back_after: Duration | None = Field(default=None, gt=0)
    """Time from the loss until it comes back; left out, when somebody revives it."""


class ReviveNode(Model):
    """The node is back, or its announced preemption is off."""

    fault: Literal["ReviveNode"] = "ReviveNode"
    node: str
    """Name, or a pattern."""


class RefuseCapacity(Model):
    """Every start is refused with `CapacityError` for a while."""

    fault: Literal["RefuseCapacity"] = "RefuseCapacity"
    lasts: Duration = Field(gt=0)
    """How long."""


class LoseAnswers(Model):
    """Starts and stops are carried out, and their answers are lost, for a while."""

    fault: Literal["LoseAnswers"] = "LoseAnswers"
    lasts: Duration = Field(gt=0)
    """How long."""


class CutAnswers(Model):
    """The cell's engine answers nothing and takes no call for a while; what runs goes on."""

    fault: Literal["CutAnswers"] = "CutAnswers"
    lasts: Duration = Field(gt=0)
    """How long."""


class FailJob(Model):
    """What runs under this name ends."""

    fault: Literal["FailJob"] = "FailJob"
    job: str
    """Name of the job or service."""
    reason: Reason = "Error"
    """The reason that it ends with."""


Drill = KillNode | PreemptNode | ReviveNode | RefuseCapacity | LoseAnswers | CutAnswers | FailJob
KINDS = (KillNode, PreemptNode, ReviveNode, RefuseCapacity, LoseAnswers, CutAnswers, FailJob)
_DRILL: TypeAdapter[Drill] = TypeAdapter(Annotated[Drill, Field(discriminator="fault")])


class DrillFile:
    """Reads `faults.jsonl` as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def size(self) -> int:
        """Bytes, 0 where there is no file."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, offset: int) -> tuple[list[Drill], int]:
        """The whole lines from `offset` on, and where to go on; a line that says nothing known is logged and left."""
        with self._path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        return list(self._parsed(whole)), offset + len(whole)

    def _parsed(self, data: bytes) -> Iterator[Drill]:
        for line in data.splitlines():
            try:
                if line.strip():
                    yield _DRILL.validate_python(json.loads(line))
            except (ValidationError, ValueError) as error:
                _log.warning("%s: %r is no fault: %s", self._path, line[:200], error)
