"""Workloads and fleets for the simulator: drawn from a trace at a load, or as they were recorded."""

from helios.simulator.workload.assembly import as_recorded
from helios.simulator.workload.documents import cell_of, load_fleet
from helios.simulator.workload.fleet import Fleet, protocol_fleet
from helios.simulator.workload.protocol import Protocol
from helios.simulator.workload.synthesis import Synthesis
from helios.simulator.workload.tenants import tenant_states
from helios.simulator.workload.windows import Phase, Split, Window

__all__ = [
    "Fleet",
    "Phase",
    "Protocol",
    "Split",
    "Synthesis",
    "Window",
    "as_recorded",
    "cell_of",
    "load_fleet",
    "protocol_fleet",
    "tenant_states",
]
