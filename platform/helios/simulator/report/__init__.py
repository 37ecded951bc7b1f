"""The report on simulated runs: one HTML file, raw tables, figures as JSON, and a summary for terminals."""

from helios.simulator.report.goals import Goal, Verdict, goals
from helios.simulator.report.roles import Roles
from helios.simulator.report.summary import summary, summary_table
from helios.simulator.report.write import write_report

__all__ = ["Goal", "Roles", "Verdict", "goals", "summary", "summary_table", "write_report"]
