"""The kinds there are, and a document that was read from a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from helios.spec.cell import Cell
from helios.spec.curriculum import Curriculum
from helios.spec.job import Job
from helios.spec.service import Service
from helios.spec.source import Position
from helios.spec.tenant import Tenant

AnyDocument = Cell | Tenant | Job | Curriculum | Service

KINDS: dict[str, type[AnyDocument]] = {
    "Cell": Cell,
    "Tenant": Tenant,
    "Job": Job,
    "Curriculum": Curriculum,
    "Service": Service,
}
PLURALS = {"Cell": "cells", "Tenant": "tenants", "Job": "jobs", "Curriculum": "curricula", "Service": "services"}
"""Kinds in URLs and on the command line."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One document of one file.

    Attributes:
        line: where the document begins, 1-based.
        positions: 1-based (line, column) of each value by its dotted path (`spec.nodePools[0].instanceType`).
        notes: what could not be checked, and why; one sentence each.
    """

    document: AnyDocument
    file: str
    line: int
    positions: Mapping[str, Position] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
