"""Traces by OpenTelemetry, where the extra `tracing` is installed and an exporter is configured; else nothing.

tracing.start("helios-server")                  exports to OTEL_EXPORTER_OTLP_ENDPOINT, if that is set
with tracing.span("reconcile", kind="Job"): ...
with tracing.span("request", parent=request.headers): ...
client.get(url, headers=tracing.headers())      W3C traceparent, so that the other side's spans join
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
Value = str | bool | int | float

_log = logging.getLogger(__name__)
_provider: "TracerProvider | None" = None
_NOTHING: AbstractContextManager[None] = nullcontext()


def start(service: str, *, processor: "SpanProcessor | None" = None) -> bool:
    """Begin to trace, and say whether spans are made from now on.

    Without a processor they go in batches, by OTLP over HTTP, to where `OTEL_EXPORTER_OTLP_ENDPOINT` says; nothing
    happens where it is not set. Where it is set and the packages are not there, that is logged: a server without traces
    is better than none.
    """
    if processor is None and not os.environ.get(ENDPOINT):
        return False
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider

        processor = processor or _exporting()
    except ImportError:
        _log.warning("%s is set, but OpenTelemetry is not installed: pip install 'helios-platform[tracing]'", ENDPOINT)
        return False
    global _provider  # noqa: PLW0603 - one process, one place that its spans go to
    stop()
    _provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
    _provider.add_span_processor(processor)
    return True


def stop() -> None:
    """Send what is still held back, and make no more spans; nothing where none were made."""
    global _provider  # noqa: PLW0603 - see `start`
    if _provider is not None:
        _provider.shutdown()
    _provider = None


def is_on() -> bool:
    """Whether spans are made, for who would have to prepare what they say."""
    return _provider is not None


def span(name: str, *, parent: Mapping[str, str] | None = None, **attributes: Value) -> AbstractContextManager[None]:
    """One piece of work. Costs a comparison where tracing is off.

    Args:
        name: of few values: never with the name of an object in it.
        parent: HTTP headers of whoever asked for it; without, the span that is open here is its parent.
        attributes: each becomes `helios.<name>`.
    """
    return _NOTHING if _provider is None else _span(_provider, name, parent, attributes)


def headers() -> dict[str, str]:
    """`traceparent` (and `tracestate`) of the span that is open here, for a request that goes out; else nothing."""
    carrier: dict[str, str] = {}
    if _provider is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(carrier)
    return carrier


def _exporting() -> "SpanProcessor":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter())


@contextmanager
def _span(
    provider: "TracerProvider", name: str, parent: Mapping[str, str] | None, attributes: Mapping[str, Value]
) -> Iterator[None]:
    from opentelemetry.trace import Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, Any] = {key.lower(): value for key, value in (parent or {}).items()}
    context = TraceContextTextMapPropagator().extract(carrier) if parent is not None else None
    named = {f"helios.{key}": value for key, value in attributes.items()}
    opened = provider.get_tracer("helios").start_as_current_span(
        name, context=context, attributes=named, record_exception=False, set_status_on_exception=False
    )
    with opened as current:
        try:
            yield
        except BaseException as error:
            # The type only: a message may quote what must not leave the house.
            current.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
