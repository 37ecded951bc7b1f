"""Kind `Service`: a Ray Serve application that stays up."""

from typing import Annotated, Any, Literal

from pydantic import Field

from helios.spec.base import Document, EnvName, Integer, Matching, Model, Name, SecretRef
from helios.spec.workload import Placement, QoS, Resources

_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
Application = Annotated[
    str, Matching(rf"^{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}$", "an application as module:function")
]


class ServiceSpec(Model):
    """What to serve, and with what."""

    tenant: Name = "default"
    """Whose quota pays."""
    qos: QoS = QoS.GUARANTEED
    """Who goes first in the queue: `guaranteed`, then `standard`, then `preemptible`."""
    application: Application
    """The Ray Serve application builder, `module:function`."""
    model: str | None = None
    """MLflow model to load: `models:/name@alias`. The service follows the alias at each deploy."""
    replicas: Integer = Field(default=1, ge=0, le=10_000)
    """How many replicas answer requests."""
    resources: Resources = Resources()
    """What each replica needs."""
    config: dict[str, Any] = Field(default={})
    """Settings for the application, free-form; checked where its package says how (`helios.configs`)."""
    envs: dict[EnvName, str] = Field(default={})
    """Environment variables."""
    secrets: dict[EnvName, SecretRef] = Field(default={})
    """Environment variables whose values are read on the cell: `env:`, `file:`, `k8s:` or `aws-sm:` and where it is."""
    placement: Placement = Placement()
    """Where the service may run."""


class Service(Document):
    """A Ray Serve application that stays up."""

    kind: Literal["Service"] = "Service"
    """`Service`."""
    spec: ServiceSpec
    """What to serve."""
