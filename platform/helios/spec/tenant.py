"""Kind `Tenant`: who pays, and how much of what they may use."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from helios.spec.base import AcceleratorType, Document, Errors, Integer, Model, Name, located


class Quota(Model):
    """How many accelerators of one type a tenant may use, over all cells."""

    accelerator: AcceleratorType
    """Accelerator type: `H100`."""
    nominal_quota: Integer = Field(ge=0)
    """Its own: what the tenant's work holds beyond is borrowed, and given back when its owner wants it."""
    borrowing_limit: Integer | None = Field(default=None, ge=0)
    """How many more it may hold while others of the cohort leave theirs idle; all of them where it is not set."""
    lending_limit: Integer | None = Field(default=None, ge=0)
    """How many of its own others of the cohort may hold meanwhile; all of them where it is not set."""


class TenantSpec(Model):
    """What the tenant may use."""

    cohort: Name | None = None
    """Tenants of the same cohort lend each other what they leave idle; without one it neither borrows nor lends."""
    weight: Annotated[float, Field(gt=0, le=1_000_000, strict=True)] = 1.0
    """Its fair share, relative to others: with twice the weight, what it has had counts half in the queue's order."""
    quotas: list[Quota] = Field(default=[])
    """Grants by accelerator type. Without any, nothing is limited; else a type that is not named is not granted.

    They are for `guaranteed` and `standard` work; `preemptible` work needs the grant and counts against none.
    """

    @model_validator(mode="after")
    def _one_quota_a_type(self) -> Self:
        seen: set[str] = set()
        errors: Errors = []
        for index, quota in enumerate(self.quotas):
            if quota.accelerator in seen:
                errors.append((("quotas", index, "accelerator"), "", f"{quota.accelerator!r} has a quota already"))
            seen.add(quota.accelerator)
        if errors:
            raise located("Tenant", errors)
        return self


class Tenant(Document):
    """A team with quota and a fair share."""

    kind: Literal["Tenant"] = "Tenant"
    """`Tenant`."""
    spec: TenantSpec = TenantSpec()
    """What the tenant may use."""
