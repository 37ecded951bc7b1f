"""HELIOS: one control plane over many standardized GPU cells."""

__version__ = "0.1.0"
