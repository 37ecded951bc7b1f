"""Spans where tracing is on, nothing where it is off."""

import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from helios.telemetry import tracing


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    """Tracing is on; what was exported."""
    found = InMemorySpanExporter()
    assert tracing.start("helios-test", processor=SimpleSpanProcessor(found))
    yield found
    tracing.stop()


def test_span_says_what_was_done_to_what(exporter: InMemorySpanExporter) -> None:
    """Its name, its attributes, and the service that did it; inner spans are its children."""
    with tracing.span("reconcile", kind="Job", count=3), tracing.span("store.write"):
        pass
    inner, outer = exporter.get_finished_spans()
    assert (outer.name, dict(outer.attributes or {})) == ("reconcile", {"helios.kind": "Job", "helios.count": 3})
    assert inner.parent is not None
    assert outer.context is not None
    assert inner.parent.span_id == outer.context.span_id
    assert outer.resource.attributes["service.name"] == "helios-test"


def test_trace_goes_on_across_a_request(exporter: InMemorySpanExporter) -> None:
    """The header of the one side is the parent of the other's span, in whatever case a server hands it over."""
    with tracing.span("client"):
        sent = tracing.headers()
    with tracing.span("server", parent={"Traceparent": sent["traceparent"]}):
        pass
    client, server = exporter.get_finished_spans()
    assert client.context is not None
    assert server.context is not None
    assert server.context.trace_id == client.context.trace_id
    assert server.parent is not None
    assert server.parent.span_id == client.context.span_id


def test_request_without_a_parent_begins_a_trace(exporter: InMemorySpanExporter) -> None:
    """Also where its header is garbage."""
    with tracing.span("server", parent={"traceparent": "garbage"}):
        pass
    (server,) = exporter.get_finished_spans()
    assert server.parent is None


def test_failure_marks_the_span_by_type_alone(exporter: InMemorySpanExporter) -> None:
    """A message may quote a secret, so it is in no trace; the error goes on to the caller."""
    with pytest.raises(ValueError, match="hls_ab12_secret"), tracing.span("work"):
        raise ValueError("hls_ab12_secret")
    (work,) = exporter.get_finished_spans()
    assert work.status.status_code is StatusCode.ERROR
    assert work.status.description == "ValueError"
    assert "hls_ab12" not in work.to_json()


def test_nothing_happens_where_nothing_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans are one shared object that does nothing, and no header goes out."""
    monkeypatch.delenv(tracing.ENDPOINT, raising=False)
    assert not tracing.start("helios-test")
    assert tracing.span("a") is tracing.span("b", kind="Job")
    with tracing.span("a"):
        assert tracing.headers() == {}


def test_missing_packages_are_told_and_do_not_stop_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Configured but not installed: one line in the log that says what to install."""
    monkeypatch.setenv(tracing.ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    assert not tracing.start("helios-test")
    assert "helios-platform[tracing]" in caplog.text
    with tracing.span("a"):
        pass


def test_endpoint_from_the_environment_starts_the_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable set, spans are made; stopping without one sends nothing."""
    monkeypatch.setenv(tracing.ENDPOINT, "http://127.0.0.1:9")
    assert tracing.start("helios-test")
    try:
        assert tracing.span("a") is not tracing.span("b")
    finally:
        tracing.stop()
    assert tracing.span("a") is tracing.span("b")
