"""Kind `Job`: one gang of workers that runs a program to its end."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from helios.spec.base import Document, Duration, EnvName, Integer, Model, Name, SecretRef, located
from helios.spec.workload import Array, Checkpoint, Placement, QoS, Resources, Retry, Schedule, Timeout, Workers


class JobTemplate(Model):
    """Everything a job says except for whom it runs; what a curriculum's `defaults` and stages may say."""

    qos: QoS = QoS.STANDARD
    """Who goes first in the queue: `guaranteed`, then `standard`, then `preemptible`."""
    priority: Integer = Field(default=0, ge=-1000, le=1000)
    """Order among jobs of the same tenant and QoS; higher goes first."""
    resources: Resources = Resources()
    """What each worker needs."""
    workers: Workers = Workers(min=1, max=1)
    """How many workers run together, all or none."""
    entrypoint: str = ""
    """Command line that runs on the cell: `python -m my.training`."""
    workdir: str | None = None
    """Folder to run in, on the cell; the job's own folder where it is not set."""
    config: dict[str, Any] = Field(default={})
    """Settings for the program, free-form; checked where the program's package says how (`helios.configs`)."""
    envs: dict[EnvName, str] = Field(default={})
    """Environment variables."""
    secrets: dict[EnvName, SecretRef] = Field(default={})
    """Environment variables whose values are read on the cell: `env:`, `file:`, `k8s:` or `aws-sm:` and where it is."""
    checkpoint: Checkpoint = Checkpoint()
    """How the job protects its progress."""
    retry: Retry = Retry()
    """What happens when the program fails."""
    placement: Placement = Placement()
    """Where the job may run."""
    timeout: Timeout = Timeout()
    """When to give up."""
    estimate: Duration | None = Field(default=None, gt=0)
    """How long it is expected to run with its most workers: `6h`. It is corrected by what jobs like it took before, and
    stands for `timeout.run`, which is used where it is not set. Nothing happens to a job that takes longer."""

    @model_validator(mode="after")
    def _envs_and_secrets_apart(self) -> Self:
        if both := sorted(self.envs.keys() & self.secrets.keys()):
            raise located(
                "Job", [(("secrets", name), "", f"{name} is set in envs too; keep one of the two") for name in both]
            )
        return self


class JobSpec(JobTemplate):
    """What to run, with what, and how it is looked after."""

    tenant: Name = "default"
    """Whose quota pays."""
    entrypoint: str = Field(min_length=1, max_length=4096)
    """Command line that runs on the cell: `python -m my.training`."""
    needs: list[Name] = Field(default=[], max_length=100)
    """Jobs of the same tenant that must have succeeded before this one is queued; one that fails holds it back."""
    array: Array | None = None
    """Run it many times over, each with a number of its own."""
    schedule: Schedule | None = None
    """Run it at given times."""

    @model_validator(mode="after")
    def _one_way_to_repeat(self) -> Self:
        if self.schedule is not None and self.needs:
            raise located(
                "Job", [(("needs",), "", "a job with a schedule begins at its times; it cannot wait for jobs")]
            )
        return self


class Job(Document):
    """One gang of workers that runs a program to its end."""

    kind: Literal["Job"] = "Job"
    """`Job`."""
    spec: JobSpec
    """What to run."""
