"""Workloads at a load: the protocol of `docs/decisions/0017-simulation-protocol.md`."""

import math
from dataclasses import dataclass, field

from helios.errors import InputError
from helios.simulator.jobs import Workload
from helios.simulator.traces.trace import Trace
from helios.simulator.workload.assembly import assembled
from helios.simulator.workload.copies import Pool, draw_copies, superpose
from helios.simulator.workload.facts import facts_of, notes_of
from helios.simulator.workload.fits import check_fits
from helios.simulator.workload.fleet import Fleet
from helios.simulator.workload.synthesis import Synthesis
from helios.simulator.workload.tenants import Tenants
from helios.simulator.workload.windows import Split, Window

MAX_LOAD = 10.0


@dataclass(frozen=True)
class Protocol:
    """A trace, the fleet that it is to load, and what is made up for it."""

    trace: Trace
    fleet: Fleet
    synthesis: Synthesis = field(default_factory=Synthesis)
    split: Split = field(default_factory=Split)

    def at_load(self, load: float, seed: int, window: Window | None = None) -> Workload:
        """A workload with a given load in the measured window; the same arguments give the same.

        With one seed, the jobs at a low load are among those at a higher one, so that load curves compare like with
        like.

        Args:
            load: device-seconds that would be used within the measured window if every job started at once, over what
                the fleet has in it.
            seed: draws copies and what is made up.
            window: of which phase, and how long; a week of `report` where it is not said.

        Raises:
            InputError: the load cannot be reached, or the trace is too short.
            SpecError: a job of the trace fits on no cell; with its row.
        """
        if not (math.isfinite(load) and 0 < load <= MAX_LOAD):
            raise InputError(f"expected a load above 0 and up to {MAX_LOAD:g}, got {load}")
        if seed < 0:
            raise InputError(f"expected a seed of 0 or more, got {seed}")
        window = window or Window()
        pool = Pool.of(self.trace, self.split.weeks(self.trace, window.phase))
        check_fits(self.trace, self.fleet)
        capacity = self.fleet.capacity
        copies = superpose(draw_copies(pool, window, seed), load * capacity * window.measured_s)
        tenants = Tenants.of(copies, self.trace, self.fleet)
        facts = facts_of(copies, pool, capacity, window) | tenants.facts()
        return Workload(
            name=self.trace.name,
            jobs=assembled(copies, self.trace, self.synthesis, tenants),
            horizon_s=window.horizon_s,
            notes=(*self.trace.notes, *self.fleet.notes, *notes_of(facts, pool, window)),
            window=window.span,
            load=facts["load"],
            quotas=dict(zip(tenants.names, tenants.quotas.tolist(), strict=True)),
            facts=facts,
        )
