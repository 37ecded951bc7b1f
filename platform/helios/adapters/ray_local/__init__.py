"""One machine as a cell: its own Ray, run as a program beside HELIOS."""
