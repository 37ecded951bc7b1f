"""The table of each kind: which columns say most in 100 of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from helios.cli.client import KINDS
from helios.cli.output import age, state_text, table_of

Cells = list[str | Text]


def restarts_of(status: Mapping[str, Any]) -> int:
    """How often a job began again: by the control plane or, as it says itself, with new workers inside one start."""
    counts = (status.get("restarts"), (status.get("progress") or {}).get("restarts"))
    return max(int(count or 0) for count in counts)


def objects_table(kind: str, objects: Iterable[Mapping[str, Any]]) -> RenderableType:
    """Build the table of objects of one kind."""
    columns, row = _TABLES[kind]
    return table_of(columns, [row(item) for item in objects], empty=f"no {KINDS[kind]}")


def conditions_table(status: Mapping[str, Any]) -> RenderableType:
    rows: list[Cells] = [
        [
            str(condition.get("type", "")),
            str(condition.get("status", "")),
            str(condition.get("reason") or "-"),
            str(condition.get("message") or ""),
        ]
        for condition in status.get("conditions") or []
    ]
    return table_of(("CONDITION", "STATUS", "REASON", "MESSAGE"), rows, empty="no conditions yet")


def _common(item: Mapping[str, Any]) -> tuple[str, Mapping[str, Any], Mapping[str, Any], str]:
    metadata = item["metadata"]
    return metadata["name"], item["spec"], item.get("status") or {}, age(metadata.get("creationTimestamp"))


def _cell(item: Mapping[str, Any]) -> Cells:
    name, spec, status, old = _common(item)
    pools = ", ".join(pool["name"] for pool in spec.get("nodePools") or [])
    state = state_text(status.get("state") or "Pending")
    return [name, state, spec["provider"], spec.get("region") or "-", pools or "-", old]


def _tenant(item: Mapping[str, Any]) -> Cells:
    name, spec, _, old = _common(item)
    quotas = ", ".join(f"{quota['accelerator']}:{quota['nominalQuota']}" for quota in spec.get("quotas") or [])
    return [name, spec.get("cohort") or "-", f"{spec.get('weight', 1):g}", quotas or "-", old]


def _job(item: Mapping[str, Any]) -> Cells:
    name, spec, status, old = _common(item)
    placement = status.get("placement") or {}
    return [
        name,
        state_text(status.get("state") or "Pending"),
        spec.get("qos") or "-",
        spec.get("tenant") or "-",
        placement.get("cell") or "-",
        steps_of(status),
        str(restarts_of(status)),
        old,
        status.get("reason") or "",
    ]


def steps_of(status: Mapping[str, Any]) -> str:
    """Steps done of a job, as in `3/10`; of an array, its members that succeeded; `-` where nothing is known."""
    progress, array = status.get("progress") or {}, status.get("array")
    if array:
        return f"{(array.get('states') or {}).get('Succeeded', 0)}/{array['size']}"
    return f"{progress['step']}/{progress['total_steps']}" if progress.get("total_steps") else "-"


def _curriculum(item: Mapping[str, Any]) -> Cells:
    name, spec, status, old = _common(item)
    stages: Sequence[Mapping[str, Any]] = status.get("stages") or []
    done = sum(stage.get("state") == "Succeeded" for stage in stages)
    now = next((stage["name"] for stage in stages if stage.get("state") != "Succeeded"), "-")
    state = state_text(status.get("state") or "Pending")
    return [name, state, str(status.get("run") or 1), f"{done}/{len(spec['stages'])}", now, old]


def _service(item: Mapping[str, Any]) -> Cells:
    name, spec, status, old = _common(item)
    state = state_text(status.get("state") or "Pending")
    return [name, state, str(spec.get("replicas", 1)), spec.get("model") or "-", status.get("url") or "-", old]


_TABLES: Mapping[str, tuple[Sequence[str], Callable[[Mapping[str, Any]], Cells]]] = {
    "Cell": (("NAME", "STATE", "PROVIDER", "REGION", "POOLS", "AGE"), _cell),
    "Tenant": (("NAME", "COHORT", "WEIGHT", "QUOTA", "AGE"), _tenant),
    "Job": (("NAME", "STATE", "QOS", "TENANT", "CELL", "STEP", "RESTARTS", "AGE", "REASON"), _job),
    "Curriculum": (("NAME", "STATE", "RUN", "DONE", "STAGE", "AGE"), _curriculum),
    "Service": (("NAME", "STATE", "REPLICAS", "MODEL", "URL", "AGE"), _service),
}
