"""Whether a snapshot and a policy that were read can be: no name twice, nothing below what it can be."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from helios.errors import InputError, nearest
from helios.scheduler.policy import Policy
from helios.scheduler.snapshot import Request, RunningGang, Snapshot

MOST = 2**53
"""Whole numbers above it are no doubles any more, and their sums leave 64 bits."""
_STAGES = {"global_stage": ("helios", "least_loaded"), "cell_stage": ("helios", "best_fit")}
_FREE = frozenset({"priority", "now", "submitted_at", "started_at", "checkpointed_at", "ends_at", "leaving_at"})
_POSITIVE = frozenset({"half_life", "ingress_rate", "weight", "speeds", "unknown_estimate"})


def check(snapshot: Snapshot, policy: Policy) -> None:
    """Raise `InputError` with the place of the first thing that cannot be."""
    _numbers(snapshot, "snapshot", "")
    _numbers(policy, "policy", "")
    for name, known in _STAGES.items():
        if (stage := getattr(policy, name)) not in known:
            near = nearest(stage, known)
            hint = f"did you mean {near!r}?" if near else ""
            raise InputError(f"policy.{name}: expected one of {', '.join(known)}, got {stage!r}", hint=hint)
    for what in ("cells", "tenants"):
        _once((one.name for one in getattr(snapshot, what)), f"snapshot.{what}", "name")
    for index, cell in enumerate(snapshot.cells):
        _once((node.name for node in cell.nodes), f"snapshot.cells[{index}].nodes", "name")
    _once((gang.uid for gang in snapshot.pending), "snapshot.pending", "uid")
    _once((gang.uid for gang in snapshot.running), "snapshot.running", "uid")
    both = {gang.uid for gang in snapshot.pending} & {gang.uid for gang in snapshot.running}
    for index, running in enumerate(snapshot.running):
        where = f"snapshot.running[{index}]"
        if running.uid in both:
            raise InputError(f"{where}.uid: {running.uid!r} is pending, too")
        _running(running, where)
    for index, gang in enumerate(snapshot.pending):
        where = f"snapshot.pending[{index}]"
        if not 1 <= gang.min_workers <= gang.max_workers:
            raise InputError(
                f"{where}.min_workers: expected 1 to max_workers ({gang.max_workers}), got {gang.min_workers}"
            )
        _request(gang.request, f"{where}.request")
        for number, other in enumerate(gang.alternatives):
            _request(other, f"{where}.alternatives[{number}]")
    for index, headroom in enumerate(snapshot.headroom):
        _request(headroom.request, f"snapshot.headroom[{index}].request")


def _running(gang: RunningGang, where: str) -> None:
    _request(gang.request, f"{where}.request")
    if not gang.nodes:
        raise InputError(f"{where}.nodes: expected the node of each worker, got none")
    wanted = len(gang.nodes) if gang.request.share else 0
    if len(gang.devices) != wanted:
        raise InputError(f"{where}.devices: expected {wanted} numbers, got {len(gang.devices)}")


def _request(request: Request, where: str) -> None:
    if request.share > 1000 or (request.share and request.accelerators):
        raise InputError(f"{where}.share: expected up to 1000 thousandths, and no whole devices, got {request.share}")
    if bool(request.accelerator) != bool(request.share or request.accelerators):
        raise InputError(f"{where}.accelerator: expected a type where devices are asked for, and only there")


def _once(names: Iterable[str], where: str, what: str) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            raise InputError(f"{where}[{index}].{what}: {name!r} is there twice")
        seen.add(name)


def _numbers(value: Any, where: str, name: str) -> None:
    """Nothing is below zero that cannot be, nothing that is divided by is zero, and no whole number is endless."""
    if is_dataclass(value):
        for field in fields(value):
            _numbers(getattr(value, field.name), f"{where}.{field.name}", field.name)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _numbers(item, f"{where}[{key}]", name)
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            _numbers(item, f"{where}[{index}]", name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _number(value, where, name)


def _number(value: float, where: str, name: str) -> None:
    if isinstance(value, int) and abs(value) > MOST:
        raise InputError(f"{where}: expected a whole number of at most {MOST}, got {str(value)[:20]}...")
    if name in _POSITIVE and value <= 0:
        raise InputError(f"{where}: expected more than 0, got {value:g}")
    if name not in _FREE and value < 0:
        raise InputError(f"{where}: expected 0 or more, got {value:g}")
