"""What HELIOS says about itself: metrics, logs, traces.

    metrics   one registry of Prometheus metrics, small functions that fill it, `render()` for `GET /metrics`
    logs      structlog, set up once; the standard library's loggers go through it; secrets do not
    tracing   OpenTelemetry spans where it is installed and configured, nothing where it is not

The only room that knows prometheus_client, structlog and opentelemetry. Each module is imported by itself, so that the
command line pays for none of them.
"""
