"""The cell's bucket: private, encrypted, versioned, protected; old versions go after the cell's retention."""

import json
import math

import pulumi
import pulumi_aws as aws

from helios.spec import Cell

_DAY = 86_400
_ABORT_UPLOADS_AFTER_DAYS = 7


class Storage(pulumi.ComponentResource):
    """The bucket and its settings, each a resource of its own as the provider wants them."""

    def __init__(self, name: str, cell: Cell, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("helios:aws:Storage", name, None, opts)
        own = pulumi.ResourceOptions(parent=self)
        self.bucket = aws.s3.Bucket(
            name,
            force_destroy=False,
            tags={"Name": name},
            opts=pulumi.ResourceOptions(parent=self, protect=True),
        )
        bucket = self.bucket.id
        aws.s3.BucketPublicAccessBlock(
            name,
            bucket=bucket,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=own,
        )
        aws.s3.BucketOwnershipControls(
            name,
            bucket=bucket,
            rule=aws.s3.BucketOwnershipControlsRuleArgs(object_ownership="BucketOwnerEnforced"),
            opts=own,
        )
        versioning = aws.s3.BucketVersioning(
            name,
            bucket=bucket,
            versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"),
            opts=own,
        )
        self._encrypt(name, own)
        self._expire(name, math.ceil(cell.spec.storage.retention / _DAY), versioning)
        aws.s3.BucketPolicy(name, bucket=bucket, policy=self.bucket.arn.apply(_only_tls), opts=own)
        self.register_outputs({"bucket": bucket})

    def _encrypt(self, name: str, own: pulumi.ResourceOptions) -> None:
        default = aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
            sse_algorithm="aws:kms"
        )
        rule = aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
            apply_server_side_encryption_by_default=default, bucket_key_enabled=True
        )
        aws.s3.BucketServerSideEncryptionConfiguration(name, bucket=self.bucket.id, rules=[rule], opts=own)

    def _expire(self, name: str, days: int, versioning: aws.s3.BucketVersioning) -> None:
        rules = [
            aws.s3.BucketLifecycleConfigurationRuleArgs(
                id="old-versions",
                status="Enabled",
                filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
                noncurrent_version_expiration=aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
                    noncurrent_days=max(days, 1)
                ),
                abort_incomplete_multipart_upload=(
                    aws.s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(
                        days_after_initiation=_ABORT_UPLOADS_AFTER_DAYS
                    )
                ),
            )
        ]
        opts = pulumi.ResourceOptions(parent=self, depends_on=[versioning])  # S3 wants versioning on before
        aws.s3.BucketLifecycleConfiguration(name, bucket=self.bucket.id, rules=rules, opts=opts)


def _only_tls(arn: str) -> str:
    statement = {
        "Sid": "OnlyTls",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
