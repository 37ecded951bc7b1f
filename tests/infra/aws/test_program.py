"""What the program of an AWS cell declares: the graph, resource by resource."""

import json
from ipaddress import IPv4Network

import pytest

from helios_infra.registration import Registration

Graph = list[Registration]


def _of(graph: Graph, kind: str) -> list[Registration]:
    return [registration for registration in graph if registration.type.endswith((f":{kind}", f"/{kind}"))]


def _one(graph: Graph, kind: str, name: str | None = None) -> Registration:
    (found,) = [registration for registration in _of(graph, kind) if name is None or registration.name == name]
    return found


def _reaches(graph: Graph, start: Registration, goal: Registration) -> bool:
    """Whether `goal` is among the dependencies of `start`, or of what it depends on."""
    by_urn = {registration.urn: registration for registration in graph}
    open_ones, seen = list(start.dependencies), set()
    while open_ones:
        urn = open_ones.pop()
        if urn == goal.urn:
            return True
        if urn not in seen:
            seen.add(urn)
            open_ones += by_urn[urn].dependencies
    return False


def test_every_resource_is_inside_a_component_and_every_dependency_exists(graph: Graph) -> None:
    """Nothing hangs loose: parents and dependencies are registered, and each resource has a component of ours."""
    urns = {registration.urn for registration in graph}
    components = {registration.urn for registration in graph if not registration.custom}
    assert {one.type for one in graph if not one.custom} == {
        f"helios:aws:{kind}" for kind in ("Network", "Cluster", "Storage", "Nodes", "Pool", "KubeRay")
    }
    for registration in graph:
        assert set(registration.dependencies) <= urns, registration.name
        if registration.custom and registration.type != "pulumi:providers:aws":
            assert registration.parent in components, registration.name


def test_subnets_tile_the_vpc_without_overlap(graph: Graph) -> None:
    """A public and a private subnet a zone, each in the VPC and in its range, none over another."""
    vpc, subnets = _one(graph, "Vpc"), _of(graph, "Subnet")
    assert sorted(subnet.inputs["availabilityZone"] for subnet in subnets) == ["us-east-1a"] * 2 + ["us-east-1b"] * 2
    ranges = [IPv4Network(subnet.inputs["cidrBlock"]) for subnet in subnets]
    for index, (subnet, block) in enumerate(zip(subnets, ranges, strict=True)):
        assert subnet.inputs["vpcId"] == f"{vpc.name}-id"
        assert vpc.urn in subnet.dependencies
        assert block.subnet_of(IPv4Network(vpc.inputs["cidrBlock"]))
        assert not any(block.overlaps(other) for other in ranges[:index])
    private = [subnet for subnet in subnets if "-private-" in subnet.name]
    assert all(IPv4Network(subnet.inputs["cidrBlock"]).num_addresses == 16_384 for subnet in private)


def test_each_zone_has_its_own_way_out(graph: Graph) -> None:
    """A private subnet's default route is its own zone's NAT gateway, a public one's the internet gateway."""
    tables = {table.name: table for table in _of(graph, "RouteTable")}
    for zone in ("us-east-1a", "us-east-1b"):
        (route,) = tables[f"c-private-{zone}"].inputs["routes"]
        assert route["natGatewayId"] == f"c-{zone}-id"
        assert _one(graph, "NatGateway", f"c-{zone}").inputs["subnetId"] == f"c-public-{zone}-id"
    (route,) = tables["c-public"].inputs["routes"]
    assert route["gatewayId"] == "c-id"
    pairs = {(one.inputs["subnetId"], one.inputs["routeTableId"]) for one in _of(graph, "RouteTableAssociation")}
    assert pairs == {
        *((f"c-private-{zone}-id", f"c-private-{zone}-id") for zone in ("us-east-1a", "us-east-1b")),
        *((f"c-public-{zone}-id", "c-public-id") for zone in ("us-east-1a", "us-east-1b")),
    }


def test_checkpoints_do_not_pay_the_nat_gateway(graph: Graph) -> None:
    """S3 is reached through a gateway endpoint from every subnet."""
    endpoint = _one(graph, "VpcEndpoint").inputs
    assert (endpoint["vpcEndpointType"], endpoint["serviceName"]) == ("Gateway", "com.amazonaws.us-east-1.s3")
    assert len(endpoint["routeTableIds"]) == 3


def test_bucket_is_private_encrypted_versioned_and_protected(graph: Graph) -> None:
    """The bucket cannot be deleted by mistake or read in the open; old versions go after the retention, rounded up."""
    bucket = _one(graph, "Bucket")
    assert bucket.protect
    assert [registration.name for registration in graph if registration.protect] == ["c"]
    assert bucket.inputs["forceDestroy"] is False
    block = _one(graph, "BucketPublicAccessBlock").inputs
    flags = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    assert all(block[flag] is True for flag in flags)
    assert _one(graph, "BucketVersioning").inputs["versioningConfiguration"] == {"status": "Enabled"}
    (rule,) = _one(graph, "BucketServerSideEncryptionConfiguration").inputs["rules"]
    assert rule["applyServerSideEncryptionByDefault"] == {"sseAlgorithm": "aws:kms"}
    lifecycle = _one(graph, "BucketLifecycleConfiguration")
    assert lifecycle.inputs["rules"][0]["noncurrentVersionExpiration"] == {"noncurrentDays": 2}
    assert _reaches(graph, lifecycle, _one(graph, "BucketVersioning"))
    policy = json.loads(_one(graph, "BucketPolicy").inputs["policy"])["Statement"][0]
    assert (policy["Effect"], policy["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    settings = [one for one in graph if one.type.startswith("aws:s3/") and one is not bucket]
    assert all(one.inputs["bucket"] == "c-id" for one in settings)


def test_api_server_is_not_on_the_internet(graph: Graph) -> None:
    """The cluster's endpoint answers inside its network only."""
    vpc_config = next(one for one in _of(graph, "Cluster") if one.custom).inputs["vpcConfig"]
    assert (vpc_config["endpointPrivateAccess"], vpc_config["endpointPublicAccess"]) == (True, False)


def test_nodes_come_after_the_cluster_and_what_they_need(graph: Graph) -> None:
    """Each node group waits for the cluster, its network add-on and the node role's policies; CoreDNS for nodes."""
    cluster, role = _one(graph, "cluster:Cluster"), _one(graph, "Role", "c-node")
    groups = _of(graph, "NodeGroup")
    assert sorted(group.name for group in groups) == ["c-burst", "c-data", "c-serve", "c-system", "c-train"]
    policies = [one for one in _of(graph, "RolePolicyAttachment") if one.name.startswith("c-node-")]
    for group in groups:
        for needed in (cluster, role, _one(graph, "Addon", "c-vpc-cni"), *policies):
            assert _reaches(graph, group, needed), (group.name, needed.name)
    assert _reaches(graph, _one(graph, "Addon", "c-coredns"), _one(graph, "NodeGroup", "c-system"))


def test_gpu_pool_is_reserved_in_one_zone_with_an_efa_a_card(graph: Graph) -> None:
    """32 interfaces, the first alone with an address, in one placement group, into the targeted reservation."""
    template = _one(graph, "LaunchTemplate", "c-train").inputs
    cards = template["networkInterfaces"]
    assert [card["networkCardIndex"] for card in cards] == list(range(32))
    assert [card["interfaceType"] for card in cards] == ["efa"] + ["efa-only"] * 31
    assert [card["deviceIndex"] for card in cards] == [0] + [1] * 31
    assert all(card["securityGroups"] == ["sg-planned", "c-fabric-id"] for card in cards)
    assert template["placement"] == {"groupName": "c-train"}
    assert _one(graph, "PlacementGroup", "c-train").inputs["strategy"] == "cluster"
    reservation = _one(graph, "CapacityReservation").inputs
    assert (reservation["instanceCount"], reservation["instanceMatchCriteria"]) == (4, "targeted")
    assert (reservation["availabilityZone"], reservation["instanceType"]) == ("us-east-1a", "p5.48xlarge")
    target = template["capacityReservationSpecification"]["capacityReservationTarget"]
    assert target == {"capacityReservationId": "c-train-id"}
    group = _one(graph, "NodeGroup", "c-train").inputs
    assert group["subnetIds"] == ["c-private-us-east-1a-id"]
    assert group["scalingConfig"] == {"minSize": 2, "maxSize": 4, "desiredSize": 2}


@pytest.mark.parametrize(
    ("pool", "capacity", "ami", "zones", "tainted"),
    [
        ("train", "ON_DEMAND", "AL2023_x86_64_NVIDIA", 1, True),
        ("burst", "SPOT", "AL2023_x86_64_NVIDIA", 1, True),
        ("serve", "ON_DEMAND", "AL2023_x86_64_NVIDIA", 2, True),
        ("data", "ON_DEMAND", "AL2023_x86_64_STANDARD", 2, False),
    ],
)
def test_pools_become_node_groups_of_their_capacity_type(
    graph: Graph, *, pool: str, capacity: str, ami: str, zones: int, tainted: bool
) -> None:
    """One managed node group a pool, labelled for the scheduler; GPU nodes are kept for GPU work."""
    group = _one(graph, "NodeGroup", f"c-{pool}").inputs
    assert (group["capacityType"], group["amiType"], len(group["subnetIds"])) == (capacity, ami, zones)
    assert group["labels"]["helios.dev/pool"] == pool
    taints = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}]
    assert group.get("taints") == (taints if tainted else None)
    assert group["launchTemplate"] == {"id": f"c-{pool}-id", "version": "1"}


def test_instances_answer_metadata_only_to_themselves(graph: Graph) -> None:
    """IMDSv2, one hop, encrypted disks, on every launch template."""
    for template in _of(graph, "LaunchTemplate"):
        assert template.inputs["metadataOptions"] == {"httpTokens": "required", "httpPutResponseHopLimit": 1}
        (disk,) = template.inputs["blockDeviceMappings"]
        assert disk["ebs"]["encrypted"] == "true"


def test_kuberay_is_installed_at_a_pinned_version_by_the_cells_own_provider(graph: Graph) -> None:
    """The operator comes from its chart repository, after nodes; workers reach the bucket by pod identity alone."""
    release = _one(graph, "Release")
    assert (release.inputs["chart"], release.inputs["version"]) == ("kuberay-operator", "1.7.0")
    assert release.inputs["namespace"] == "helios"
    for needed in (_one(graph, "Namespace"), _one(graph, "NodeGroup", "c-system"), _one(graph, "Addon", "c-coredns")):
        assert _reaches(graph, release, needed)
    identity = _one(graph, "PodIdentityAssociation").inputs
    assert (identity["namespace"], identity["serviceAccount"]) == ("helios", "helios-worker")
    allowed = json.loads(_one(graph, "RolePolicy").inputs["policy"])["Statement"]
    assert {statement["Resource"] for statement in allowed} == {"arn:aws:planned:::c", "arn:aws:planned:::c/*"}


def test_kubeconfig_holds_no_secret(graph: Graph) -> None:
    """The Kubernetes provider asks AWS for a token when it is used."""
    config = json.loads(_one(graph, "kubernetes").inputs["kubeconfig"])
    assert config["users"][0]["user"]["exec"]["args"] == [
        "eks",
        "get-token",
        "--cluster-name",
        "c",
        "--region",
        "us-east-1",
    ]
    assert "token" not in config["users"][0]["user"]


def test_everything_carries_the_cells_name(graph: Graph) -> None:
    """All resources belong to the cell by name, and the AWS provider tags them with it."""
    assert all(registration.name == "c" or registration.name.startswith("c-") for registration in graph)
    provider = _one(graph, "aws").inputs
    assert json.loads(provider["defaultTags"])["tags"]["helios.dev/cell"] == "c"
    assert provider["region"] == "us-east-1"
