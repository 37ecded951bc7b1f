"""What everything costs and how often anything breaks in a simulated run: the same for every policy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from helios.errors import InputError
from helios.spec import Retry

DAY_S = 86_400.0
_POSITIVE = frozenset({"cycle_s", "sample_s", "half_life", "preemption_window", "usage_s", "report_s"})
_SHARES = frozenset({"start_failures", "domain_penalty", "quantile"})


@dataclass(frozen=True, slots=True)
class Settings:
    """The numbers that a run goes by. What is called synthetic is no measurement: sweep it.

    Attributes:
        seed: of faults, and of what else is drawn here.
        cycle_s: seconds between two scheduling cycles at least; they begin at its multiples.
        sample_s: seconds between two samples of the fleet.
        window: measured seconds (from, to); None: the workload's own, or all that its submissions span.
        tail_s: seconds after the last submission in which jobs may still end; then the run is over.
        stays: whether each stay of a gang in a cell is kept.
        failures: of one node a day. 6.5 of 1,000 nodes a day is RSC-1's rate (Kokolis et al., "Revisiting Reliability
            in Large-Scale Machine Learning Research Clusters", 2024).
        repair_s: mean seconds from the discovery of a dead node until it takes work again (synthetic).
        detection_s: seconds from a node's death until anybody knows; what ran there is held meanwhile.
        reclaims: notices that one preemptible node gets a day (synthetic).
        notice_s: seconds from a notice until the provider takes the node; clouds give 30 to 120.
        absence_s: mean seconds until a node that was taken is back (synthetic).
        start_failures: share of starts that fail when they should be done, for want of room on the cell (synthetic).
        grace_s: seconds from the scheduler's notice until a gang must be gone; a checkpoint that takes longer is lost.
        stop_s: seconds that a gang's processes take to end.
        retry: how often a program that fails is tried again. None of the traces says it, and the durations in them
            are of whole jobs, retries included: so none by default.
        speeds: relative speed by accelerator type; 1 where it is missing.
        alternatives: accelerator types that do as well as one, in order of preference.
        speedups: exponents of elastic gangs: n of at most m workers work (n / m) ** exponent as fast as m. Each job
            has one of them, drawn by its group. The default is fitted (least squares in logarithms, best local
            batch, 6 to 64 replicas) to five profiles of the Pollux artifact (OSDI '21): deepspeech2 0.65,
            cifar10 0.73, yolov3 0.83, bert 0.91, imagenet 0.96; its sixth, ncf, does not scale at all.
        domain_penalty: share of its speed that a gang loses for each domain that it spans more than one of: rack,
            block, fabric (synthetic).
        checkpoint_gib: GiB of a checkpoint for each device of its gang (synthetic); what another cell must fetch.
        report_s: seconds between two words of a running gang about its checkpoints at least.
        usage_s: seconds between two updates of the tenants' use.
        half_life: seconds after which a tenant's past use counts half; that of the policy.
        preemption_window: seconds for which a tenant's preemptions are counted.
        quantile: of finished run times of a group that is expected of its next job.
    """

    seed: int = 0
    cycle_s: float = 30.0
    sample_s: float = 3600.0
    window: tuple[float, float] | None = None
    tail_s: float = 7 * DAY_S
    stays: bool = False
    failures: float = 0.0065
    repair_s: float = 4 * 3600.0
    detection_s: float = 30.0
    reclaims: float = 0.2
    notice_s: float = 60.0
    absence_s: float = 2 * 3600.0
    start_failures: float = 0.005
    grace_s: float = 120.0
    stop_s: float = 5.0
    retry: Retry = field(default_factory=lambda: Retry(max_retries=0))
    speeds: Mapping[str, float] = field(default_factory=dict)
    alternatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    speedups: tuple[float, ...] = (0.65, 0.73, 0.83, 0.91, 0.96)
    domain_penalty: float = 0.03
    checkpoint_gib: float = 2.0
    report_s: float = 900.0
    usage_s: float = 600.0
    half_life: float = 7 * DAY_S
    preemption_window: float = 7 * DAY_S
    quantile: float = 0.5

    def __post_init__(self) -> None:
        for name in (each.name for each in fields(self)):
            value = getattr(self, name)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                _check(name, value)
        if not self.speedups or min(self.speedups) < 0:
            raise InputError(f"settings: speedups is {self.speedups}; at least one exponent of 0 or more is needed")
        for accelerator, speed in self.speeds.items():
            if not 0 < speed < math.inf:
                raise InputError(f"settings: speeds: {accelerator} is {speed}; a number above 0 is needed")

    def speed(self, accelerator: str) -> float:
        """Relative speed of a device type."""
        return self.speeds.get(accelerator, 1.0)

    def fastest(self, accelerator: str) -> float:
        """Speed of the fastest devices that may take work for this type."""
        return max(self.speed(each) for each in (accelerator, *self.alternatives.get(accelerator, ())))


def _check(name: str, value: float) -> None:
    if math.isnan(value) or (name != "seed" and value < 0):
        raise InputError(f"settings: {name} is {value}; a number of 0 or more is needed")
    if name in _POSITIVE and value == 0:
        raise InputError(f"settings: {name} is 0; a number above 0 is needed")
    if name in _SHARES and value > 1:
        raise InputError(f"settings: {name} is {value}; a share of 0 to 1 is needed")
