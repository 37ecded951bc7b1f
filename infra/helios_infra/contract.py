"""What every cloud's program hands back: the same names whatever the cloud, so that an agent can join any cell."""

from dataclasses import dataclass, fields

import pulumi


@dataclass(frozen=True, slots=True, kw_only=True)
class CellContract:
    """Outputs of a provisioned cell.

    Attributes:
        cluster: the Kubernetes cluster's name, and `endpoint` its API's URL.
        bucket_uri: the cell's bucket, as `s3://name`.
        namespace: where agents and Ray clusters run, with `service_account` able to use the bucket.
        node_pools: the node groups' names by the pool's.
    """

    cluster: pulumi.Output[str]
    endpoint: pulumi.Output[str]
    bucket_uri: pulumi.Output[str]
    namespace: pulumi.Output[str]
    service_account: str
    node_pools: dict[str, pulumi.Output[str]]

    def export(self) -> None:
        """Make them the stack's outputs, in camelCase."""
        for field in fields(self):
            head, *rest = field.name.split("_")
            pulumi.export(head + "".join(word.title() for word in rest), getattr(self, field.name))
