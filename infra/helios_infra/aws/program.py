"""The Pulumi program of an AWS cell: network, cluster, machines, bucket, KubeRay; in that order of dependence."""

import pulumi
import pulumi_aws as aws

from helios.spec import Cell
from helios_infra.aws.catalog import load
from helios_infra.aws.cluster import SERVICE_ACCOUNT, Cluster, KubeRay
from helios_infra.aws.network import Network
from helios_infra.aws.nodes import Nodes, Pool
from helios_infra.aws.storage import Storage
from helios_infra.contract import CellContract


def deploy(cell: Cell) -> CellContract:
    """Declare the cell's resources in the current stack. The cell must have passed `catalog.check`."""
    name = cell.metadata.name
    tags = {"helios.dev/cell": name, "helios.dev/standard": cell.spec.standard, "managed-by": "helios"}
    region = aws.Provider(name, region=cell.spec.region, default_tags=aws.ProviderDefaultTagsArgs(tags=tags))
    here = pulumi.ResourceOptions(providers={"aws": region})
    network = Network(name, cell, load().zones_of(cell), opts=here)
    cluster = Cluster(name, cell, list(network.private.values()), opts=here)
    storage = Storage(name, cell, opts=here)
    nodes = Nodes(name, cluster=cluster, network=network, opts=here)
    pools = {
        pool.name: Pool(f"{name}-{pool.name}", pool, shared=nodes, cell=cell, opts=here)
        for pool in cell.spec.node_pools
    }
    dns = cluster.addon("coredns", [nodes.system])
    kuberay = KubeRay(name, cluster=cluster, bucket=storage.bucket, nodes=[nodes.system, dns], opts=here)
    return CellContract(
        cluster=cluster.eks.name,
        endpoint=cluster.eks.endpoint,
        bucket_uri=storage.bucket.bucket.apply(lambda bucket: f"s3://{bucket}"),
        namespace=kuberay.namespace.metadata.name,
        service_account=SERVICE_ACCOUNT,
        node_pools={pool: made.group.node_group_name for pool, made in pools.items()},
    )
