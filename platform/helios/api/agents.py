"""Routes of the cells' agents: what is to run, what they see, and log bytes that somebody reads."""

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Body, Path, Query, Request, Response
from pydantic import BaseModel, Field, TypeAdapter

from helios import wire
from helios.api.waiting import MAX_INTEGER, MAX_WAIT_S
from helios.errors import InputError, TooLargeError
from helios.ports import AgentChannel, Desired, Report

MAX_REPORT_BYTES = 32 * 2**20
"""Of a report once unpacked; some 200,000 nodes."""
MAX_AGENTS = 500
"""Agents whose long poll one replica holds; those above wait for their turn."""
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
    for name in ("generation", "sequence"):
        value = getattr(report.session, name)
        if not 0 <= value <= MAX_INTEGER:
            raise InputError(f"report.session.{name}: expected 0 to {MAX_INTEGER}, got {value}")
    gateway.report(cell, report.nodes, report.statuses, session=report.session)


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
