"""What agents and the control plane say to each other, as JSON: the dataclasses of `helios.ports` by their field names.

Strict on types, so that a broken sender is told which field is wrong; deaf to fields that it does not know, so that an
older and a newer version talk to each other during an upgrade. Defaults are left out, so they must never change.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from helios.errors import InputError
from helios.ports import Desired, HealthFinding, Launch, LaunchStatus, NodeObservation, Report, Stop

T = TypeVar("T")
Key = tuple[str, int]
"""uid and epoch: what names a launch."""
Object = dict[str, Any]

_DESIRED = TypeAdapter(Desired)
_REPORT = TypeAdapter(Report)
_LAUNCH = TypeAdapter(Launch)
_STOP = TypeAdapter(Stop)
_STATUS = TypeAdapter(LaunchStatus)
_NODE = TypeAdapter(NodeObservation)
_FINDING = TypeAdapter(HealthFinding)


def report_to_json(report: Report) -> Object:
    """A report as plain JSON values; a number that JSON cannot hold (a loss of NaN) becomes null."""
    return _object(_dump(_REPORT, report))


def report_bytes(report: Report) -> bytes:
    """The JSON text of `report_to_json`."""
    return _dump(_REPORT, report)


def report_from_json(data: object) -> Report:
    """Read what `report_to_json` made. Raises `InputError` naming the field."""
    return _load(_REPORT, data, "report")


def desired_to_json(desired: Desired, *, have: Iterable[Key] = ()) -> Object:
    """What a cell is to run; of launches that the reader has, uid and epoch alone. `digest` names the whole."""
    known = set(have)
    data = _object(_dump(_DESIRED, desired))
    launches = [
        {"uid": launch["uid"], "epoch": launch["epoch"]} if (launch["uid"], launch["epoch"]) in known else launch
        for launch in data.get("launches", [])
    ]
    return {"digest": digest(desired), "stops": [], "logs": [], **data, "launches": launches}


def desired_from_json(data: object, *, have: Mapping[Key, Launch] | None = None) -> Desired:
    """Read what `desired_to_json` made; `have` are the launches that the writer was told of.

    Raises:
        InputError: names the field; also for a launch by uid and epoch alone that is not in `have`.
    """
    known = have or {}
    if not isinstance(data, Mapping):
        raise InputError(f"desired: expected an object, got {type(data).__name__}")
    launches = data.get("launches", [])
    if not isinstance(launches, list):
        raise InputError(f"desired.launches: expected a list, got {type(launches).__name__}")
    rest = _load(_DESIRED, {**data, "launches": []}, "desired")
    filled = tuple(_launch(item, known, f"desired.launches[{index}]") for index, item in enumerate(launches))
    return Desired(filled, rest.stops, rest.logs)


def digest(desired: Desired) -> str:
    """A short name of what is wanted: equal for equal launches (by uid and epoch), stops and logs."""
    launches = [(launch.uid, launch.epoch) for launch in desired.launches]
    stops = [(stop.uid, stop.epoch, float(stop.grace_s), stop.reason) for stop in desired.stops]
    logs = [(want.uid, want.epoch, want.offset) for want in desired.logs]
    return hashlib.sha256(json.dumps([launches, stops, logs]).encode()).hexdigest()[:32]


def launch_to_json(launch: Launch) -> Object:
    return _object(_dump(_LAUNCH, launch))


def launch_from_json(data: object) -> Launch:
    """Raises `InputError` naming the field."""
    return _load(_LAUNCH, data, "launch")


def stop_to_json(stop: Stop) -> Object:
    return _object(_dump(_STOP, stop))


def stop_from_json(data: object) -> Stop:
    """Raises `InputError` naming the field."""
    return _load(_STOP, data, "stop")


def status_to_json(status: LaunchStatus) -> Object:
    return _object(_dump(_STATUS, status))


def status_from_json(data: object) -> LaunchStatus:
    """Raises `InputError` naming the field."""
    return _load(_STATUS, data, "status")


def node_to_json(node: NodeObservation) -> Object:
    return _object(_dump(_NODE, node))


def node_from_json(data: object) -> NodeObservation:
    """Raises `InputError` naming the field."""
    return _load(_NODE, data, "node")


def finding_to_json(finding: HealthFinding) -> Object:
    return _object(_dump(_FINDING, finding))


def finding_from_json(data: object) -> HealthFinding:
    """Raises `InputError` naming the field."""
    return _load(_FINDING, data, "finding")


def _launch(item: object, known: Mapping[Key, Launch], where: str) -> Launch:
    if not isinstance(item, Mapping) or "kind" in item:
        return _load(_LAUNCH, item, where)
    launch = known.get((str(item.get("uid")), item.get("epoch", 0)))
    if launch is None:
        raise InputError(f"{where}: {item.get('uid')} epoch {item.get('epoch')} came without its spec and is not known")
    return launch


def _dump(adapter: TypeAdapter[T], value: T) -> bytes:
    try:
        return adapter.dump_json(value, exclude_defaults=True, warnings="error")
    except PydanticSerializationError:
        # Half a surrogate pair in what a job wrote: its text is escaped, and the cell is still heard.
        return to_json(_printable(adapter.dump_python(value, exclude_defaults=True)), inf_nan_mode="null")


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in value]
    return value


def _object(text: bytes) -> Object:
    data: Object = json.loads(text)
    return data


def _load(adapter: TypeAdapter[T], data: object, what: str) -> T:
    """Validate as JSON, where a list may become a tuple and a string an enum, and nothing else becomes anything."""
    try:
        text = data if isinstance(data, bytes) else to_json(data)
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        raise InputError("\n".join(_said(what, item) for item in error.errors(include_url=False))) from None
    except PydanticSerializationError as error:
        raise InputError(f"{what}: cannot be JSON ({error})") from None


def _said(what: str, item: Mapping[str, Any]) -> str:
    where = what
    for part in item["loc"]:
        where += f"[{part}]" if isinstance(part, int) else f".{part}"
    got = "" if item["type"] in {"missing", "json_invalid"} else f", got {str(item['input'])[:80]!r}"
    return f"{where}: {item['msg']}{got}"
