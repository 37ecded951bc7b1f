"""What passes between the driver and its workers. No torch here: the driver reads its orders before it loads any."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

from helios_jobs.curriculum.config import StageConfig
from helios_jobs.train.context import JobContext

if TYPE_CHECKING:
    from helios_jobs.curriculum.objective import Objective

BuildObjective = Callable[[StageConfig], "Objective"]


class Settings(TypedDict):
    """What the driver hands to every worker."""

    job: JobContext
    config: StageConfig
    build_objective: BuildObjective


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a gang's training ended, as rank 0 returns it to the driver.

    Attributes:
        reason: `Completed`, `Preempted`, `NoSpace`, `InvalidConfig` or `Error`.
    """

    reason: str
    message: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
