"""Jobs that other records made: a curriculum its stages, an array its members, a schedule its runs."""

from collections.abc import Mapping

from helios.store import Record

CURRICULUM_LABEL = "helios/curriculum"
ARRAY_LABEL = "helios/array"
SCHEDULE_LABEL = "helios/schedule"
_OWNERS: Mapping[str, str] = {ARRAY_LABEL: "Job", SCHEDULE_LABEL: "Job", CURRICULUM_LABEL: "Curriculum"}
"""The innermost first: members and runs carry the labels of what made them, too."""


def owner_of(record: Record) -> tuple[str, str] | None:
    """Kind and name of what a job says made it, or None. Labels are anybody's to set: owners compare uids too."""
    if record.kind != "Job":
        return None
    return next(((kind, record.labels[label]) for label, kind in _OWNERS.items() if label in record.labels), None)


def makes_jobs(record: Record) -> bool:
    """Whether this job only makes other jobs, and never runs itself."""
    return record.kind == "Job" and bool(record.spec.get("array") or record.spec.get("schedule"))
