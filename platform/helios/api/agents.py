"""Routes of the cells' agents: what is to run, what they see, and log bytes that somebody reads."""

import time
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

import anyio
import anyio.to_thread
import orjson
from fastapi import APIRouter, Body, Path, Query, Request, Response
from pydantic import BaseModel, Field, TypeAdapter

from helios import wire
from helios.api.waiting import MAX_INTEGER, MAX_WAIT_S
from helios.errors import InputError, TooLargeError
from helios.ports import AgentChannel, Desired, LaunchStatus, NodeObservation, Report, Session

MAX_REPORT_BYTES = 32 * 2**20
"""Of a report once unpacked; some 200,000 nodes."""
MAX_AGENTS = 500
"""Agents whose long poll one replica holds; those above wait for their turn."""
MAX_QUANTITY = 2**53
"""Of what a node has: what JSON's readers hold exactly, and a fleet's sum of which fits 64 bits."""
MAX_GENERATION_AHEAD_S = 86400.0
"""How far an agent's generation may be ahead of the clock here."""
_SLICE_S = 1.0
"""How long one wait may hold its thread; bounds how long a server that ends waits for it."""

Epoch = Annotated[int, Path(ge=0, le=MAX_INTEGER)]
Uid = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
MAX_OFFSET = 2**62
"""Of a log byte; what is pushed from there on still fits the store's columns."""
_waiters = anyio.CapacityLimiter(MAX_AGENTS)


class DesiredRequest(BaseModel):
    """What an agent asks."""

    known: str = Field(default="", max_length=200)
    """`digest` of the answer that the agent has; it waits for another."""
    have: list[tuple[str, Annotated[int, Field(ge=0, le=MAX_INTEGER)]]] = Field(default=[])
    """Launches (uid, epoch) whose spec the agent has; they come without it."""
    wait: float = Field(default=0.0, ge=0, le=MAX_WAIT_S)
    """Seconds to wait for something new."""
    document: bool = False
    """Answer with the cell's own document, too."""


def agent_router(gateway: AgentChannel, *, document: Callable[[str], Mapping[str, Any]]) -> APIRouter:
    """Routes under `/v1/agents/{cell}`, for the agent of that cell alone.

    Args:
        gateway: what they are a way to.
        document: a cell as it was applied, by name; raises `NotFoundError`.
    """
    router = APIRouter(prefix="/v1/agents/{cell}", tags=["Agents"])

    @router.post("/desired", summary="What the cell is to run, to stop, and whose logs are wanted; waits for a change")
    async def desired(cell: str, asked: Annotated[DesiredRequest, Body()], request: Request) -> dict[str, Any]:
        found = await _until(gateway, cell, asked, request)
        answer = await anyio.to_thread.run_sync(partial(wire.desired_to_json, found, have=asked.have))
        return answer | ({"cell": await anyio.to_thread.run_sync(document, cell)} if asked.document else {})

    @router.post(
        "/report",
        summary="What the cell has and what lives there; gzip is taken",
        status_code=204,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _schema()}},
            }
        },
    )
    async def report(cell: str, request: Request) -> Response:
        body = await request.body()
        packed = request.headers.get("content-encoding", "") == "gzip"
        await anyio.to_thread.run_sync(partial(_take, gateway, cell, body, packed=packed))
        return Response(status_code=204)

    @router.put(
        "/logs/{uid}/{epoch}",
        summary="Log bytes that are wanted",
        status_code=204,
        openapi_extra={
            "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
        },
    )
    async def logs(  # noqa: PLR0917  # FastAPI calls by name
        cell: str,
        uid: Uid,
        epoch: Epoch,
        request: Request,
        offset: Annotated[int, Query(ge=0, le=MAX_OFFSET, description="Byte at which these begin.")],
        ended: Annotated[bool, Query(description="None will follow.")] = False,
    ) -> Response:
        data = await request.body()
        push = partial(gateway.push_log, cell, uid, epoch, offset=offset, data=data, ended=ended)
        await anyio.to_thread.run_sync(push)
        return Response(status_code=204)

    return router


async def _until(gateway: AgentChannel, cell: str, asked: DesiredRequest, request: Request) -> Desired:
    """What is wanted, as soon as it is not what the agent knows."""
    deadline = anyio.current_time() + asked.wait
    found = await anyio.to_thread.run_sync(gateway.desired, cell)
    while await anyio.to_thread.run_sync(wire.digest, found) == asked.known:
        remaining = deadline - anyio.current_time()
        if remaining <= 0 or await request.is_disconnected():
            break
        pause = partial(gateway.wait, cell, found, min(remaining, _SLICE_S))
        found = await anyio.to_thread.run_sync(pause, limiter=_waiters)
    return found


def _take(gateway: AgentChannel, cell: str, body: bytes, *, packed: bool) -> None:
    report = wire.report_from_json(_unpacked(body) if packed else body)
    if report.cell != cell:
        raise InputError(f"report.cell: the URL says {cell!r}, got {report.cell!r}")
    _check_session(report.session)
    for index, node in enumerate(report.nodes or ()):
        _check_node(node, f"report.nodes[{index}]")
    for index, status in enumerate(report.statuses):
        _check_status(status, f"report.statuses[{index}]")
    gateway.report(cell, report.nodes, report.statuses, session=report.session)


def _check_session(session: Session) -> None:
    """An agent's first generation is its clock; one far ahead of it would shut out whoever comes after it for good."""
    _check_number(session.sequence, "report.session.sequence", MAX_INTEGER)
    latest = int(time.time() + MAX_GENERATION_AHEAD_S)
    if not 0 <= session.generation <= latest:
        raise InputError(
            f"report.session.generation: expected 0 to {latest}, got {session.generation}",
            hint="the first generation of an agent is its clock, in seconds; set the clock, and its state folder anew",
        )


def _check_node(node: NodeObservation, where: str) -> None:
    """What a cell says of its nodes is shown to everybody and added up: a number that is none must not get there."""
    _check_number(node.cpus, f"{where}.cpus", MAX_QUANTITY)
    _check_number(node.memory, f"{where}.memory", MAX_QUANTITY)
    for name, count in node.accelerators.items():
        _check_number(count, f"{where}.accelerators.{name[:80]}", MAX_QUANTITY)


def _check_status(status: LaunchStatus, where: str) -> None:
    _check_number(status.epoch, f"{where}.epoch", MAX_INTEGER)
    try:
        orjson.dumps(status.progress)
    except orjson.JSONEncodeError as error:
        raise InputError(f"{where}.progress: cannot be shown ({error})") from None


def _check_number(value: float, where: str, most: int) -> None:
    if not 0 <= value <= most:  # what is not a number is in no range
        raise InputError(f"{where}: expected 0 to {most}, got {str(value)[:40]}")


def _unpacked(body: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        data = unpacker.decompress(body, MAX_REPORT_BYTES)
    except zlib.error as error:
        raise InputError(f"report: Content-Encoding says gzip, and it is not ({error})") from None
    if not unpacker.eof:
        if unpacker.unconsumed_tail:
            raise TooLargeError(f"a report may have {MAX_REPORT_BYTES} bytes at most")
        raise InputError("report: the gzip stream is cut short")
    return data


def _schema() -> dict[str, Any]:
    """The JSON schema of a report, whole: what hangs in `openapi_extra` cannot point to the document's components."""
    schema = TypeAdapter(Report).json_schema()
    definitions = schema.pop("$defs")

    def inlined(part: Any) -> Any:
        if isinstance(part, dict):
            if name := str(part.get("$ref", "")).removeprefix("#/$defs/"):
                return inlined(definitions[name])
            return {key: inlined(value) for key, value in part.items()}
        return [inlined(item) for item in part] if isinstance(part, list) else part

    whole: dict[str, Any] = inlined(schema)
    return whole
