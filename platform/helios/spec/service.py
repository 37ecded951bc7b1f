"""Kind `Service`: a Ray Serve application that stays up."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from helios.spec.base import Document, EnvName, Model, Name, SecretRef
from helios.spec.workload import Integer, Placement, QoS, Resources

APPLICATION_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"


def _application(value: str) -> str:
    import re

    if not re.fullmatch(APPLICATION_PATTERN, value):
        raise ValueError(f"expected an application as module:function, got {value!r}")
    return value


class ServiceSpec(Model):
    """What to serve, and with what."""

    tenant: Name = "default"
    """Whose quota pays."""
    qos: QoS = QoS.GUARANTEED
    """Who makes way for whom: `guaranteed`, `standard` or `preemptible`."""
    application: Annotated[str, AfterValidator(_application), Field(json_schema_extra={"pattern": APPLICATION_PATTERN})]
    """The Ray Serve application builder, `module:function`."""
    model: str | None = None
    """MLflow model to load: `models:/name@alias`. The service follows the alias at each deploy."""
    replicas: Integer = Field(default=1, ge=0, le=10_000)
    """How many replicas answer requests."""
    resources: Resources = Resources()
    """What each replica needs."""
    config: dict[str, Any] = {}
    """Settings for the application, free-form; checked where its package says how (`helios.configs`)."""
    envs: dict[EnvName, str] = {}
    """Environment variables."""
    secrets: dict[EnvName, SecretRef] = {}
    """Environment variables whose values are read on the cell: `env:NAME` or `file:/path`."""
    placement: Placement = Placement()
    """Where the service may run."""


class Service(Document):
    """A Ray Serve application that stays up."""

    kind: Literal["Service"] = "Service"
    """`Service`."""
    spec: ServiceSpec
    """What to serve."""
