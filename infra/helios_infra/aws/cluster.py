"""The cell's Kubernetes: EKS with its roles, identity provider and add-ons, and the KubeRay operator on it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from helios.spec import Cell

NAMESPACE = "helios"
SERVICE_ACCOUNT = "helios-worker"
KUBERAY_REPOSITORY = "https://ray-project.github.io/kuberay-helm/"
KUBERAY_VERSION = "1.7.0"
_LOGS = ["api", "audit", "authenticator"]
_BEFORE_NODES = ("vpc-cni", "kube-proxy", "eks-pod-identity-agent")


def service_role(
    name: str, principal: str, policies: Sequence[str], opts: pulumi.ResourceOptions, *, session_tags: bool = False
) -> tuple[aws.iam.Role, list[aws.iam.RolePolicyAttachment]]:
    """A role that an AWS service takes on, with AWS's own policies (by name) attached."""
    actions = ["sts:AssumeRole", *(["sts:TagSession"] if session_tags else [])]
    statement = {"Effect": "Allow", "Principal": {"Service": principal}, "Action": actions}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    role = aws.iam.Role(name, assume_role_policy=document, opts=opts)
    attached = [
        aws.iam.RolePolicyAttachment(
            f"{name}-{policy}", role=role.name, policy_arn=f"arn:aws:iam::aws:policy/{policy}", opts=opts
        )
        for policy in policies
    ]
    return role, attached


class Cluster(pulumi.ComponentResource):
    """The control plane, what identifies its service accounts to AWS, and the add-ons that nodes need to come up."""

    def __init__(
        self, name: str, cell: Cell, subnets: Sequence[aws.ec2.Subnet], opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("helios:aws:Cluster", name, None, opts)
        own = pulumi.ResourceOptions(parent=self)
        role, attached = service_role(f"{name}-cluster", "eks.amazonaws.com", ["AmazonEKSClusterPolicy"], own)
        self.eks = aws.eks.Cluster(
            name,
            name=name,
            version=cell.spec.cluster.kubernetes_version,
            role_arn=role.arn,
            vpc_config=aws.eks.ClusterVpcConfigArgs(
                subnet_ids=[subnet.id for subnet in subnets],
                endpoint_private_access=True,
                endpoint_public_access=False,  # whoever provisions does it from a network that reaches the VPC
            ),
            access_config=aws.eks.ClusterAccessConfigArgs(
                authentication_mode="API", bootstrap_cluster_creator_admin_permissions=True
            ),
            enabled_cluster_log_types=_LOGS,
            bootstrap_self_managed_addons=False,
            opts=pulumi.ResourceOptions(parent=self, depends_on=attached),
        )
        self.security_group: pulumi.Output[str] = self.eks.vpc_config.cluster_security_group_id
        aws.iam.OpenIdConnectProvider(
            name,
            client_id_lists=["sts.amazonaws.com"],
            url=self.eks.identities.apply(lambda found: found[0].oidcs[0].issuer),
            opts=own,
        )
        self.addons = [self.addon(addon, []) for addon in _BEFORE_NODES]
        self.provider = k8s.Provider(
            name, kubeconfig=self._kubeconfig(cell.spec.region), enable_server_side_apply=True, opts=own
        )
        self.register_outputs({"name": self.eks.name, "endpoint": self.eks.endpoint})

    def addon(self, addon: str, after: Sequence[pulumi.Resource]) -> aws.eks.Addon:
        """An EKS add-on in the version that EKS has for the cluster's; `coredns` comes after nodes it can run on."""
        return aws.eks.Addon(
            f"{self._name}-{addon}",
            cluster_name=self.eks.name,
            addon_name=addon,
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="PRESERVE",
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(after)),
        )

    def _kubeconfig(self, region: str) -> pulumi.Output[str]:
        """A kubeconfig that holds no secret: whoever uses it asks AWS for a token."""
        facts = {"name": self.eks.name, "server": self.eks.endpoint, "ca": self.eks.certificate_authority.data}

        def write(known: Mapping[str, Any]) -> str:
            run = {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": "aws",
                "args": ["eks", "get-token", "--cluster-name", known["name"], "--region", region],
                "interactiveMode": "Never",
            }
            server = {"server": known["server"], "certificate-authority-data": known["ca"]}
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "cell", "cluster": server}],
                "users": [{"name": "caller", "user": {"exec": run}}],
                "contexts": [{"name": "cell", "context": {"cluster": "cell", "user": "caller"}}],
                "current-context": "cell",
            }
            return json.dumps(config)

        return pulumi.Output.all(**facts).apply(write)


class KubeRay(pulumi.ComponentResource):
    """The namespace work runs in, the KubeRay operator, and the workers' right to use the cell's bucket."""

    def __init__(
        self,
        name: str,
        *,
        cluster: Cluster,
        bucket: aws.s3.Bucket,
        nodes: Sequence[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("helios:aws:KubeRay", name, None, opts)
        own = pulumi.ResourceOptions(parent=self)
        inside = pulumi.ResourceOptions(parent=self, provider=cluster.provider, depends_on=list(nodes))
        metadata = k8s.meta.v1.ObjectMetaArgs(name=NAMESPACE, labels={"helios.dev/cell": name})
        self.namespace = k8s.core.v1.Namespace(name, metadata=metadata, opts=inside)
        namespace: pulumi.Output[str] = self.namespace.metadata.name
        self.release = k8s.helm.v3.Release(
            f"{name}-kuberay-operator",
            name="kuberay-operator",
            chart="kuberay-operator",
            version=KUBERAY_VERSION,
            namespace=namespace,
            repository_opts=k8s.helm.v3.RepositoryOptsArgs(repo=KUBERAY_REPOSITORY),
            atomic=True,
            timeout=600,
            opts=inside,
        )
        role, _ = service_role(f"{name}-workers", "pods.eks.amazonaws.com", [], own, session_tags=True)
        aws.iam.RolePolicy(f"{name}-bucket", role=role.id, policy=bucket.arn.apply(_use_of), opts=own)
        aws.eks.PodIdentityAssociation(
            f"{name}-workers",
            cluster_name=cluster.eks.name,
            namespace=namespace,
            service_account=SERVICE_ACCOUNT,
            role_arn=role.arn,
            opts=own,
        )
        self.register_outputs({"namespace": namespace})


def _use_of(bucket_arn: str) -> str:
    objects = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    listing = ["s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:GetBucketLocation"]
    statements = [
        {"Effect": "Allow", "Action": listing, "Resource": bucket_arn},
        {"Effect": "Allow", "Action": objects, "Resource": f"{bucket_arn}/*"},
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})
