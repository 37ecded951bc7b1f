"""The notation of HELIOS: kinds, their YAML and JSON, and what is wrong with a document, to the line and column."""

from helios.spec.base import API_VERSION, Condition, Metadata, Status
from helios.spec.cell import Cell, CellSpec, Faults, NodePool, Simulation
from helios.spec.curriculum import Curriculum, CurriculumSpec, Stage
from helios.spec.job import Job, JobSpec, JobTemplate
from helios.spec.kinds import KINDS, PLURALS, AnyDocument, Loaded
from helios.spec.loading import (
    from_json,
    load_documents,
    parse_documents,
    to_json,
)
from helios.spec.quantities import Accelerators
from helios.spec.schema import json_schema
from helios.spec.service import Service, ServiceSpec
from helios.spec.tenant import Quota, Tenant, TenantSpec
from helios.spec.workload import (
    Array,
    CapacityType,
    Checkpoint,
    Concurrency,
    Placement,
    QoS,
    Resources,
    Retry,
    Schedule,
    Timeout,
    Workers,
)

__all__ = [
    "API_VERSION",
    "KINDS",
    "PLURALS",
    "Accelerators",
    "AnyDocument",
    "Array",
    "CapacityType",
    "Cell",
    "CellSpec",
    "Checkpoint",
    "Concurrency",
    "Condition",
    "Curriculum",
    "CurriculumSpec",
    "Faults",
    "Job",
    "JobSpec",
    "JobTemplate",
    "Loaded",
    "Metadata",
    "NodePool",
    "Placement",
    "QoS",
    "Quota",
    "Resources",
    "Retry",
    "Schedule",
    "Service",
    "ServiceSpec",
    "Simulation",
    "Stage",
    "Status",
    "Tenant",
    "TenantSpec",
    "Timeout",
    "Workers",
    "from_json",
    "json_schema",
    "load_documents",
    "parse_documents",
    "to_json",
]
