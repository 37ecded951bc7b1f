"""Public production traces, and any CSV of one form, each with what its source warns of."""

from helios.simulator.traces.catalog import load_trace
from helios.simulator.traces.folder import trace_folder
from helios.simulator.traces.generic import load_csv
from helios.simulator.traces.philly import load_philly
from helios.simulator.traces.trace import Trace

__all__ = ["Trace", "load_csv", "load_philly", "load_trace", "trace_folder"]
