"""The cell's machines: one managed node group a pool, with its fabric, its reservation and its launch template."""

from collections.abc import Sequence

import pulumi
import pulumi_aws as aws

from helios.spec import CapacityType, Cell, NodePool
from helios_infra.aws.catalog import InstanceType, load
from helios_infra.aws.cluster import Cluster, service_role
from helios_infra.aws.network import Network
from helios_infra.aws.sizes import (
    GPU_DISK_GIB,
    POOL_LABEL,
    SYSTEM_DISK_GIB,
    SYSTEM_INSTANCE,
    SYSTEM_NODES,
    SYSTEM_POOL,
)

_NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryPullOnly")
_EKS_CAPACITY = {
    CapacityType.RESERVED: "ON_DEMAND",  # into the reservation that the launch template targets
    CapacityType.ON_DEMAND: "ON_DEMAND",
    CapacityType.PREEMPTIBLE: "SPOT",
}


class Nodes(pulumi.ComponentResource):
    """What all node groups share (their role, the fabric's security group) and the system node group."""

    def __init__(
        self, name: str, *, cluster: Cluster, network: Network, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("helios:aws:Nodes", name, None, opts)
        own = pulumi.ResourceOptions(parent=self)
        self.cluster = cluster
        self.network = network
        self.role, attached = service_role(f"{name}-node", "ec2.amazonaws.com", _NODE_POLICIES, own)
        self.ready: list[pulumi.Resource] = [*attached, *cluster.addons]
        self.fabric = self._fabric(name, own)
        template = aws.ec2.LaunchTemplate(
            f"{name}-{SYSTEM_POOL}",
            instance_type=SYSTEM_INSTANCE,
            block_device_mappings=[_root_disk(SYSTEM_DISK_GIB)],
            metadata_options=_metadata_options(),
            opts=own,
        )
        self.system = aws.eks.NodeGroup(
            f"{name}-{SYSTEM_POOL}",
            cluster_name=cluster.eks.name,
            node_group_name=SYSTEM_POOL,
            node_role_arn=self.role.arn,
            subnet_ids=[subnet.id for subnet in network.private.values()],
            ami_type="AL2023_x86_64_STANDARD",
            launch_template=_of(template),
            scaling_config=aws.eks.NodeGroupScalingConfigArgs(
                min_size=SYSTEM_NODES, max_size=SYSTEM_NODES, desired_size=SYSTEM_NODES
            ),
            labels={POOL_LABEL: SYSTEM_POOL},
            opts=pulumi.ResourceOptions(parent=self, depends_on=self.ready),
        )
        self.register_outputs({"role": self.role.arn})

    def _fabric(self, name: str, own: pulumi.ResourceOptions) -> aws.ec2.SecurityGroup:
        """EFA bypasses the kernel, and is let through only between members of one group, both ways, all protocols."""
        group = aws.ec2.SecurityGroup(
            f"{name}-fabric", vpc_id=self.network.vpc.id, description="EFA between GPU nodes", opts=own
        )
        for direction in ("ingress", "egress"):
            aws.ec2.SecurityGroupRule(
                f"{name}-fabric-{direction}",
                type=direction,
                security_group_id=group.id,
                self=True,
                protocol="-1",
                from_port=0,
                to_port=0,
                opts=own,
            )
        return group


class Pool(pulumi.ComponentResource):
    """One node pool of the cell."""

    def __init__(
        self, name: str, pool: NodePool, *, shared: Nodes, cell: Cell, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("helios:aws:Pool", name, None, opts)
        self._resource_name = name
        self._pool = pool
        self._shared = shared
        self._kind = load().instances[pool.instance_type or ""]
        self._own = pulumi.ResourceOptions(parent=self)
        zone = next(iter(shared.network.private))
        tied = self._kind.efa > 0 or pool.capacity_type is CapacityType.RESERVED
        subnets = [shared.network.private[zone]] if tied else list(shared.network.private.values())
        placement = self._placement_group() if self._kind.efa else None
        reservation = self._reserve(zone, placement) if pool.capacity_type is CapacityType.RESERVED else None
        template = self._launch_template(placement, reservation)
        self.group = self._node_group(subnets, template, cell)
        self.register_outputs({"nodeGroup": self.group.node_group_name})

    def _placement_group(self) -> aws.ec2.PlacementGroup:
        return aws.ec2.PlacementGroup(self._resource_name, strategy="cluster", opts=self._own)

    def _reserve(self, zone: str, placement: aws.ec2.PlacementGroup | None) -> aws.ec2.CapacityReservation:
        """An on-demand capacity reservation for the pool's maximum: paid for from the moment it exists."""
        return aws.ec2.CapacityReservation(
            self._resource_name,
            instance_type=self._kind.name,
            instance_platform="Linux/UNIX",
            availability_zone=zone,
            instance_count=self._pool.nodes.max,
            instance_match_criteria="targeted",
            end_date_type="unlimited",
            placement_group_arn=placement.arn if placement is not None else None,
            opts=self._own,
        )

    def _launch_template(
        self, placement: aws.ec2.PlacementGroup | None, reservation: aws.ec2.CapacityReservation | None
    ) -> aws.ec2.LaunchTemplate:
        target = None
        if reservation is not None:
            target = aws.ec2.LaunchTemplateCapacityReservationSpecificationArgs(
                capacity_reservation_target=(
                    aws.ec2.LaunchTemplateCapacityReservationSpecificationCapacityReservationTargetArgs(
                        capacity_reservation_id=reservation.id
                    )
                )
            )
        return aws.ec2.LaunchTemplate(
            self._resource_name,
            instance_type=self._kind.name,
            block_device_mappings=[_root_disk(GPU_DISK_GIB)],
            metadata_options=_metadata_options(),
            network_interfaces=self._interfaces() or None,
            placement=(
                aws.ec2.LaunchTemplatePlacementArgs(group_name=placement.name) if placement is not None else None
            ),
            capacity_reservation_specification=target,
            opts=self._own,
        )

    def _interfaces(self) -> list[aws.ec2.LaunchTemplateNetworkInterfaceArgs]:
        """One EFA a network card; only the first takes an IP address, or 32 of them a node would empty the subnet."""
        return [
            aws.ec2.LaunchTemplateNetworkInterfaceArgs(
                network_card_index=card,
                device_index=min(card, 1),
                interface_type="efa-only" if card else "efa",
                security_groups=[self._shared.cluster.security_group, self._shared.fabric.id],
                delete_on_termination="true",
            )
            for card in range(self._kind.efa)
        ]

    def _node_group(
        self, subnets: Sequence[aws.ec2.Subnet], template: aws.ec2.LaunchTemplate, cell: Cell
    ) -> aws.eks.NodeGroup:
        pool = self._pool
        gpu = bool(self._kind.accelerator)
        taint = aws.eks.NodeGroupTaintArgs(key="nvidia.com/gpu", value="present", effect="NO_SCHEDULE")
        return aws.eks.NodeGroup(
            self._resource_name,
            cluster_name=self._shared.cluster.eks.name,
            node_group_name=pool.name,
            node_role_arn=self._shared.role.arn,
            subnet_ids=[subnet.id for subnet in subnets],
            ami_type="AL2023_x86_64_NVIDIA" if gpu else "AL2023_x86_64_STANDARD",
            capacity_type=_EKS_CAPACITY[pool.capacity_type],
            launch_template=_of(template),
            scaling_config=aws.eks.NodeGroupScalingConfigArgs(
                min_size=pool.nodes.min, max_size=pool.nodes.max, desired_size=pool.nodes.min
            ),
            update_config=aws.eks.NodeGroupUpdateConfigArgs(max_unavailable=1),
            node_repair_config=aws.eks.NodeGroupNodeRepairConfigArgs(enabled=True),
            labels=_labels(cell, pool, self._kind),
            taints=[taint] if gpu else None,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=self._shared.ready,
                ignore_changes=["scalingConfig.desiredSize"],  # the autoscaler's from the first day on
            ),
        )


def _labels(cell: Cell, pool: NodePool, kind: InstanceType) -> dict[str, str]:
    labels = {
        "helios.dev/cell": cell.metadata.name,
        POOL_LABEL: pool.name,
        "helios.dev/capacity-type": pool.capacity_type.value,
    }
    return labels | ({"helios.dev/accelerator": kind.accelerator} if kind.accelerator else {})


def _root_disk(gib: int) -> aws.ec2.LaunchTemplateBlockDeviceMappingArgs:
    disk = aws.ec2.LaunchTemplateBlockDeviceMappingEbsArgs(
        volume_size=gib, volume_type="gp3", encrypted="true", delete_on_termination="true"
    )
    return aws.ec2.LaunchTemplateBlockDeviceMappingArgs(device_name="/dev/xvda", ebs=disk)


def _metadata_options() -> aws.ec2.LaunchTemplateMetadataOptionsArgs:
    """IMDSv2 only, one hop: pods get their rights by pod identity, not by being on the node."""
    return aws.ec2.LaunchTemplateMetadataOptionsArgs(http_tokens="required", http_put_response_hop_limit=1)


def _of(template: aws.ec2.LaunchTemplate) -> aws.eks.NodeGroupLaunchTemplateArgs:
    version = template.latest_version.apply(str)
    return aws.eks.NodeGroupLaunchTemplateArgs(id=template.id, version=version)
