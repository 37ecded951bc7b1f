"""The discrete-event simulator: the real scheduler, and others to compare with, on a virtual clock."""
