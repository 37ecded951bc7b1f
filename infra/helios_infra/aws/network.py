"""The cell's network: one VPC, a public and a private subnet a zone, one way out a zone, S3 without a way out."""

import ipaddress
from collections.abc import Mapping, Sequence

import pulumi
import pulumi_aws as aws

from helios.spec import Cell
from helios_infra.aws.subnets import ZoneBlocks, blocks


class Network(pulumi.ComponentResource):
    """VPC and what is in it. `private` and `public` hold the subnets by zone."""

    def __init__(self, name: str, cell: Cell, zones: Sequence[str], opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("helios:aws:Network", name, None, opts)
        self._name = name
        self._own = pulumi.ResourceOptions(parent=self)
        cidr = cell.spec.network.cidr
        self.vpc = aws.ec2.Vpc(
            name,
            cidr_block=cidr,
            enable_dns_hostnames=True,
            enable_dns_support=True,
            tags={"Name": name},
            opts=self._own,
        )
        gateway = aws.ec2.InternetGateway(name, vpc_id=self.vpc.id, tags={"Name": name}, opts=self._own)
        out = self._routes("public", aws.ec2.RouteTableRouteArgs(cidr_block="0.0.0.0/0", gateway_id=gateway.id))
        self.private: dict[str, aws.ec2.Subnet] = {}
        self.public: dict[str, aws.ec2.Subnet] = {}
        tables = [out]
        for zone, block in zip(zones, blocks(cidr, len(zones)), strict=True):
            tables.append(self._zone(zone, block, out, gateway))
        aws.ec2.VpcEndpoint(
            f"{name}-s3",  # checkpoints would pay the NAT gateway by the gigabyte
            vpc_id=self.vpc.id,
            service_name=f"com.amazonaws.{cell.spec.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[table.id for table in tables],
            opts=self._own,
        )
        self.register_outputs({"vpcId": self.vpc.id})

    def _zone(
        self, zone: str, block: ZoneBlocks, out: aws.ec2.RouteTable, gateway: aws.ec2.InternetGateway
    ) -> aws.ec2.RouteTable:
        """A zone's subnets, its NAT gateway, and the private subnet's route table."""
        roles = {"public": {"kubernetes.io/role/elb": "1"}, "private": {"kubernetes.io/role/internal-elb": "1"}}
        self.public[zone] = self._subnet("public", zone, block.public, roles["public"])
        self.private[zone] = self._subnet("private", zone, block.private, roles["private"])
        self._associate("public", zone, self.public[zone], out)
        address = aws.ec2.Eip(f"{self._name}-{zone}", domain="vpc", opts=self._own)
        nat = aws.ec2.NatGateway(
            f"{self._name}-{zone}",
            allocation_id=address.id,
            subnet_id=self.public[zone].id,
            tags={"Name": f"{self._name}-{zone}"},
            opts=pulumi.ResourceOptions(parent=self, depends_on=[gateway]),
        )
        table = self._routes(
            f"private-{zone}", aws.ec2.RouteTableRouteArgs(cidr_block="0.0.0.0/0", nat_gateway_id=nat.id)
        )
        self._associate("private", zone, self.private[zone], table)
        return table

    def _subnet(self, kind: str, zone: str, block: ipaddress.IPv4Network, tags: Mapping[str, str]) -> aws.ec2.Subnet:
        name = f"{self._name}-{kind}-{zone}"
        return aws.ec2.Subnet(
            name,
            vpc_id=self.vpc.id,
            availability_zone=zone,
            cidr_block=str(block),
            tags={"Name": name, **tags},
            opts=self._own,
        )

    def _routes(self, kind: str, route: aws.ec2.RouteTableRouteArgs) -> aws.ec2.RouteTable:
        name = f"{self._name}-{kind}"
        return aws.ec2.RouteTable(name, vpc_id=self.vpc.id, routes=[route], tags={"Name": name}, opts=self._own)

    def _associate(self, kind: str, zone: str, subnet: aws.ec2.Subnet, table: aws.ec2.RouteTable) -> None:
        aws.ec2.RouteTableAssociation(
            f"{self._name}-{kind}-{zone}", subnet_id=subnet.id, route_table_id=table.id, opts=self._own
        )
