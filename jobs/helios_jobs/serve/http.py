"""The HTTP surface: OpenAI-style videos, consents and models, and one error envelope for everything."""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from helios.errors import HeliosError, NotFoundError
from helios_jobs.serve.decode import MediaLimits, read_reference, read_speech
from helios_jobs.serve.errors import BusyError, RequestError, envelope, envelope_of
from helios_jobs.serve.records import Consent, VideoRequest, VideoState
from helios_jobs.serve.service import Draft, VideoService
from helios_jobs.serve.speech import speak
from helios_jobs.serve.uploads import FIELDS, FILES, Form, received_form

log = logging.getLogger(__name__)

_JSON_BODY_BYTES = 64 * 1024
_MAX_PROMPT = 2000
_DECODERS = 2  # uploads decoded at once: bounds the frames in memory


class ConsentBody(BaseModel):
    """Whose likeness may be used, who says so, and for what."""

    model_config = ConfigDict(extra="forbid")

    subject: str = Field(min_length=1, max_length=500)
    granted_by: str = Field(min_length=1, max_length=500)
    statement: str = Field(min_length=1, max_length=10_000)
    reference_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    expires_at: AwareDatetime | None = None


def create_app(service: VideoService) -> FastAPI:
    """The application; the service's worker runs as long as the application does."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.stop)

    app = FastAPI(
        title="HELIOS talking avatar",
        version="1",
        openapi_url="/v1/openapi.json",
        docs_url="/docs",
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(BodyLimit, upload_bytes=service.config.max_upload_bytes)
    _add_error_handlers(app)
    _add_videos(app, service)
    _add_consents(app, service)

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        served = {"id": service.model.name, "object": "model", "version": service.model.version, "owned_by": "helios"}
        return {"object": "list", "data": [served]}

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        ok = service.healthy
        return JSONResponse({"status": "ok" if ok else "failed"}, status_code=200 if ok else 503)

    return app


def _add_videos(app: FastAPI, service: VideoService) -> None:
    decoding = asyncio.Semaphore(_DECODERS)

    @app.post("/v1/videos", openapi_extra={"requestBody": _form_schema()})
    async def create_video(
        request: Request, idempotency_key: Annotated[str | None, Header(max_length=255)] = None
    ) -> dict[str, Any]:
        if idempotency_key is None:  # with a key it may be a repeat, which needs no room
            service.check_room()
        async with received_form(request, service.records.incoming) as form:
            known = service.known_use(idempotency_key, form.digest)
            if known is None:
                async with decoding:
                    draft = await asyncio.to_thread(draft_of, form, service)
                known = await asyncio.to_thread(service.accept, draft, key=idempotency_key, digest=form.digest)
        return video_json(*service.records.video(known.id))

    @app.get("/v1/videos")
    async def list_videos(
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: str | None = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> dict[str, Any]:
        found = await asyncio.to_thread(service.records.videos)
        ids = [request.id for request, _ in found]
        if after is not None and after not in ids:
            raise NotFoundError("video", after)
        ordered = found if order == "asc" else found[::-1]
        start = 0 if after is None else [request.id for request, _ in ordered].index(after) + 1
        page = [video_json(*pair) for pair in ordered[start : start + limit]]
        return {
            "object": "list",
            "data": page,
            "has_more": start + limit < len(ordered),
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
        }

    @app.get("/v1/videos/{video_id}")
    async def get_video(video_id: str) -> dict[str, Any]:
        return video_json(*service.records.video(video_id))

    @app.head("/v1/videos/{video_id}/content", include_in_schema=False)
    @app.get("/v1/videos/{video_id}/content", response_class=FileResponse)
    async def get_content(video_id: str, request: Request) -> Response:
        path = service.content(video_id)
        refused = refused_range(request.headers.get("range"), path.stat().st_size)
        return refused or FileResponse(
            path, media_type="video/mp4", filename=f"{video_id}.mp4", content_disposition_type="inline"
        )

    @app.delete("/v1/videos/{video_id}")
    async def delete_video(video_id: str) -> dict[str, Any]:
        await asyncio.to_thread(service.delete, video_id)
        return {"id": video_id, "object": "video.deleted", "deleted": True}


def _add_consents(app: FastAPI, service: VideoService) -> None:
    @app.post("/v1/consents", status_code=201)
    async def create_consent(body: ConsentBody) -> dict[str, Any]:
        expires = body.expires_at.timestamp() if body.expires_at is not None else None
        fields = body.model_dump(exclude={"expires_at"})
        return consent_json(await asyncio.to_thread(service.add_consent, **fields, expires_at=expires))

    @app.get("/v1/consents")
    async def list_consents() -> dict[str, Any]:
        found = await asyncio.to_thread(service.records.consents)
        return {"object": "list", "data": [consent_json(consent) for consent in found]}

    @app.get("/v1/consents/{consent_id}")
    async def get_consent(consent_id: str) -> dict[str, Any]:
        return consent_json(service.records.consent(consent_id))

    @app.delete("/v1/consents/{consent_id}")
    async def withdraw_consent(consent_id: str) -> dict[str, Any]:
        kept = await asyncio.to_thread(service.withdraw_consent, consent_id)
        return {"id": consent_id, "object": "consent.withdrawn", "withdrawn": True, "kept": kept}


def draft_of(form: Form, service: VideoService) -> Draft:
    """Check a form in the order of cost: fields, consent, then the media. Raises what is wrong with it."""
    fields = form.fields
    if fields.get("model") not in {None, "", service.model.name}:
        raise NotFoundError("model", fields["model"], known=[service.model.name])
    if "video_reference" not in form.files:
        raise _missing("video_reference", "send the clip of the person to show")
    if ("audio_reference" in form.files) == ("text" in fields):
        raise _missing("audio_reference", "send either audio_reference or text, and not both")
    if len(fields.get("prompt", "")) > _MAX_PROMPT:
        raise RequestError(f"prompt: longer than {_MAX_PROMPT} characters", reason="prompt_too_long", param="prompt")
    seed = _seed(fields.get("seed", ""))
    clip = form.files["video_reference"]
    consent_id = fields.get("consent_id", "")
    service.check_consent(consent_id, clip.sha256)

    config, pipeline = service.config, service.model.pipeline
    limits = MediaLimits(
        video_pixels=config.max_video_pixels,
        video_seconds=config.max_video_duration,
        audio_seconds=config.max_audio_duration,
    )
    voice = fields.get("voice") or "en"
    spoken = form.files["audio_reference"].path if "text" not in fields else form.folder / "spoken.wav"
    if "text" in fields:
        speak(fields["text"], voice, spoken)
    return Draft(
        speech=read_speech(
            spoken,
            limits,
            sample_rate=pipeline.sample_rate,
            param="text" if "text" in fields else "audio_reference",
        ),
        reference=read_reference(
            clip.path, limits, size=pipeline.size, fps=pipeline.fps, max_frames=config.reference_frames
        ),
        reference_sha256=clip.sha256,
        consent_id=consent_id,
        prompt=fields.get("prompt", ""),
        seed=seed,
        text=fields.get("text"),
        voice=voice if "text" in fields else None,
    )


def _missing(param: str, hint: str) -> RequestError:
    return RequestError(f"{param} is missing", reason="missing_field", param=param, hint=hint)


def _seed(text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) >= 2**32:
        raise RequestError("seed: not a whole number from 0 to 4294967295", reason="invalid_seed", param="seed")
    return int(text)


def video_json(request: VideoRequest, state: VideoState) -> dict[str, Any]:
    """A video as clients see it; times are whole seconds since the epoch."""
    return {
        "id": request.id,
        "object": "video",
        "model": request.model,
        "model_version": request.model_version,
        "status": state.status.value,
        "progress": state.progress,
        "created_at": int(request.created_at),
        "started_at": None if state.started_at is None else int(state.started_at),
        "completed_at": None if state.completed_at is None else int(state.completed_at),
        "seconds": round(request.seconds, 3),
        "prompt": request.prompt,
        "seed": request.seed,
        "consent_id": request.consent_id,
        "error": None if state.error is None else state.error.model_dump(),
    }


def consent_json(consent: Consent) -> dict[str, Any]:
    times = {
        "created_at": int(consent.created_at),
        "expires_at": None if consent.expires_at is None else int(consent.expires_at),
    }
    return {"object": "consent", **consent.model_dump(), **times}


def refused_range(header: str | None, size: int) -> JSONResponse | None:
    """The 416 for a range that begins behind the end; what is not a byte range at all is ignored, as RFC 9110 says."""
    starts = re.match(r"bytes=(\d+)-", header or "")
    if starts is None or int(starts[1]) < size:
        return None
    body = envelope(416, f"the file has {size} bytes", "range_not_satisfiable")
    return JSONResponse(body, status_code=416, headers={"content-range": f"bytes */{size}"})


def _form_schema() -> dict[str, Any]:
    properties: Mapping[str, Any] = {
        **{name: {"type": "string", "format": "binary"} for name in FILES},
        **{name: {"type": "string"} for name in FIELDS},
    }
    schema = {"type": "object", "required": ["video_reference", "consent_id"], "properties": properties}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


class BodyLimit:
    """Refuses a body over its limit: from the header where one tells, else as soon as too much has come in."""

    def __init__(self, app: ASGIApp, *, upload_bytes: int) -> None:
        self._app = app
        self._upload_bytes = upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        form = headers.get(b"content-type", b"").lower().startswith(b"multipart/form-data")
        limit = self._upload_bytes if form else _JSON_BODY_BYTES
        message = f"the request is over {limit} bytes"
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > limit:
            refusal = JSONResponse(
                envelope(413, message, "request_too_large"), status_code=413, headers={"connection": "close"}
            )
            await refusal(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            part = await receive()
            received += len(part.get("body", b""))
            if received > limit:  # an HTTPException, because FastAPI rewords any other one raised by a body
                raise HTTPException(413, message)
            return part

        await self._app(scope, counted, send)


def _add_error_handlers(app: FastAPI) -> None:
    codes = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}

    @app.exception_handler(HeliosError)
    async def known(_: Request, error: HeliosError) -> JSONResponse:
        headers = {"retry-after": str(error.retry_after)} if isinstance(error, BusyError) else None
        return JSONResponse(envelope_of(error), status_code=error.http_status, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"][1:]) or None
        said = f"{param}: {first['msg']}" if param else str(first["msg"])
        return JSONResponse(envelope(400, said, "invalid_request", param), status_code=400)

    @app.exception_handler(HTTPException)
    async def by_status(_: Request, error: HTTPException) -> JSONResponse:
        code = codes.get(error.status_code, "http_error")
        body = envelope(error.status_code, str(error.detail), code)
        return JSONResponse(body, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        body = envelope(500, "something went wrong in the service; its log has the cause", "internal_error")
        return JSONResponse(body, status_code=500)
