"""Kind `Service`: a Ray Serve application that stays up."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from helios.spec.base import Document, Duration, EnvName, Integer, Matching, Model, Name, SecretRef, located
from helios.spec.workload import Placement, QoS, Resources

_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
Application = Annotated[
    str, Matching(rf"^{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}$", "an application as module:function")
]


class Headroom(Model):
    """Room for replicas that the service will probably need soon. `preemptible` work runs there meanwhile.

    How much is held follows from the load that the service's cell reports, or from `replicas` where it reports none.
    """

    max: Integer = Field(ge=1, le=10_000)
    """How many replicas room is held for at most, beside those that the service has."""
    lead: Duration = Field(default=3600.0, gt=0, le=86_400)
    """How long a new replica takes to answer, from being asked for; counted in whole hours."""
    quantile: Annotated[float, Field(ge=0.5, le=0.99)] = 0.95
    """The share of times at which the room is to be enough."""


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
    headroom: Headroom | None = None
    """Room to hold for more of them; none where it is not set. For services of class `guaranteed`."""
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

    @model_validator(mode="after")
    def _headroom_for_guaranteed(self) -> Self:
        if self.headroom is not None and self.qos is not QoS.GUARANTEED:
            message = f"is held for services of class guaranteed; this one is {self.qos}"
            raise located("Service", [(("headroom",), "", message)])
        return self


class Service(Document):
    """A Ray Serve application that stays up."""

    kind: Literal["Service"] = "Service"
    """`Service`."""
    spec: ServiceSpec
    """What to serve."""
