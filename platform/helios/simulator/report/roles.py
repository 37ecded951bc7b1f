"""Which policy plays which part in a report."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Part(StrEnum):
    OURS = "ours"
    CONTROL = "control"
    BASELINE = "baseline"
    ORACLE = "oracle"
    ABLATION = "ablation"
    STAGES = "for the 2x2 table"


@dataclass(frozen=True, slots=True)
class Roles:
    """Names of policies by the part they play; whoever is named nowhere is a baseline.

    Attributes:
        ours: the policy that is held against the others.
        control: the fair control: least-loaded feasible cell, best fit within it.
        ours_first: ours with the control's choice of nodes.
        ours_second: ours with the control's choice of the cell.
        neither: ours with both choices the control's: what is left is order, quota, preemption and backfill.
        oracles: policies that see true run times; none of them is ever the best baseline.
        ablations: what is taken away from ours, by the policy that lacks it.
    """

    ours: str = "helios"
    control: str = "control"
    ours_first: str = "helios-cell-control"
    ours_second: str = "helios-global-control"
    neither: str = "helios-both-control"
    oracles: frozenset[str] = frozenset({"sjf-oracle", "srtf-oracle"})
    ablations: Mapping[str, str] = field(
        default_factory=lambda: {
            "helios-no-preemption": "preemption",
            "helios-no-backfill": "backfill",
            "helios-no-elastic": "elasticity",
            "helios-no-topology": "topology",
            "helios-no-defragmentation": "defragmentation",
            "helios-fgd": "all of stage 2 but the fragmentation gradient",
        }
    )

    def part(self, policy: str) -> Part:
        parts = {
            self.ours: Part.OURS,
            self.control: Part.CONTROL,
            self.ours_first: Part.STAGES,
            self.ours_second: Part.STAGES,
            self.neither: Part.STAGES,
        }
        parts |= dict.fromkeys(self.oracles, Part.ORACLE) | dict.fromkeys(self.ablations, Part.ABLATION)
        return parts.get(policy, Part.BASELINE)

    def baselines(self, policies: Iterable[str]) -> list[str]:
        """Those that ours must beat: the control and all other policies that see no more than ours does."""
        return [policy for policy in policies if self.part(policy) in {Part.CONTROL, Part.BASELINE}]

    def compared(self, policies: Iterable[str]) -> list[str]:
        """What a curve shows: ours, the control, other baselines, oracles; each kind by name."""
        order = [Part.OURS, Part.CONTROL, Part.BASELINE, Part.ORACLE]
        shown = [policy for policy in policies if self.part(policy) in order]
        return sorted(shown, key=lambda policy: (order.index(self.part(policy)), policy))
