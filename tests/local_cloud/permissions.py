"""Would AWS have allowed it? Calls of functions and instances against the policies of their roles; recorded in
`denied`, not enforced.

moto's own enforcement knows neither most resources nor conditions. A test ends with `assert cloud.denied == []`, and a
template that grants too little is found here and not on the day it is needed. AWS's managed policies count as granting
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from moto.awslambda.models import lambda_backends
from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends
from moto.secretsmanager.models import secretsmanager_backends

from .account import ACCOUNT, REGION
from .policies import Context, allowed

Needs = list[tuple[str, str, Context]]  # action, resource, what conditions may ask about

# S3: what the proxy calls an operation -> the action on the object that it needs.
ON_OBJECT = {
    "GetObject": "GetObject",
    "HeadObject": "GetObject",
    "PutObject": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "AbortMultipartUpload": "AbortMultipartUpload",
    "ListParts": "ListMultipartUploadParts",
    "DeleteObject": "DeleteObject",
    "GET attributes": "GetObjectAttributes",
    "GET tagging": "GetObjectTagging",
}
ON_BUCKET = {
    "ListObjectsV2": "ListBucket",
    "ListObjects": "ListBucket",
    "HeadBucket": "ListBucket",
    "GET versions": "ListBucketVersions",
    "GET uploads": "ListBucketMultipartUploads",
    "GET location": "GetBucketLocation",
}
ANYBODY = {"sts:GetCallerIdentity"}


def arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{rest}"


class Permissions:
    def __init__(self, cloud) -> None:
        self.cloud, self.denied = cloud, []

    def check_api(self, response, caller: str) -> None:
        call = f"{response.service_name}:{response._get_action()}"
        if role := self.role_of(caller):
            self._check(caller, role, RESOURCES.get(call, general)(self.cloud, call, response._get_param))

    def check_s3(self, operation: str, bucket: str, key: str, prefix: str | None, caller: str) -> None:
        role = self.role_of(caller)
        if role and operation in ON_BUCKET:
            context = {} if prefix is None else {"s3:prefix": prefix}
            self._check(caller, role, [(f"s3:{ON_BUCKET[operation]}", f"arn:aws:s3:::{bucket}", context)])
        elif role:
            self._check(
                caller, role, [(f"s3:{ON_OBJECT.get(operation, operation)}", f"arn:aws:s3:::{bucket}/{key}", {})]
            )

    def role_of(self, caller: str) -> str | None:
        """The role's name. The test itself and whatever has no role may do everything."""
        if caller in self.cloud.machines or caller == "minio":  # Weaviate's S3 client
            return self.cloud.instance_role
        functions = {f.function_name: f for f in lambda_backends[ACCOUNT][REGION].list_functions()} if caller else {}
        return functions[caller].role.rsplit("/", 1)[1] if caller in functions else None

    def _check(self, caller: str, role: str, needs: Needs) -> None:
        policies = list_policies(role)
        for action, resource, context in needs:
            if action not in ANYBODY and not allowed(policies, action, resource, context):
                entry = {
                    "caller": caller,
                    "role": role,
                    "action": action,
                    "resource": resource,
                    "context": dict(context),
                }
                if entry not in self.denied:
                    self.denied.append(entry)


def list_policies(role: str) -> list[dict]:
    found = next(r for r in iam_backends[ACCOUNT]["aws"].roles.values() if r.name == role)
    return [json.loads(document) for document in found.policies.values()]


# ---- which resources a call is about ---------------------------------------------------------------------------------


def general(_, call: str, __) -> Needs:
    """Calls that know no resource; also those that nobody has described here yet."""
    return [(call, "*", {})]


def topic(cloud, call: str, get) -> Needs:
    return [(call, get("TopicArn"), {})]


def parameter(cloud, call: str, get) -> Needs:
    return [(call, arn("ssm", f"parameter/{get('Name').lstrip('/')}"), {})]


def secret(cloud, call: str, get) -> Needs:
    given = get("SecretId")
    known = [s for s in secretsmanager_backends[ACCOUNT][REGION].secrets.values() if given in (s.name, s.arn)]
    return [(call, known[0].arn if known else given, {})]


def group(cloud, call: str, get) -> Needs:
    return [(call, arn("autoscaling", f"autoScalingGroup:any:autoScalingGroupName/{get('AutoScalingGroupName')}"), {})]


def instance(cloud, call: str, instance_id: str, key: str) -> tuple[str, str, Context]:
    tags = (
        {t["key"]: t["value"] for t in cloud.machines[instance_id].instance.get_tags()}
        if instance_id in cloud.machines
        else {}
    )
    return call, arn("ec2", f"instance/{instance_id}"), {f"{key}/{name}".lower(): value for name, value in tags.items()}


def send_command(cloud, call: str, get) -> Needs:
    return [
        (call, arn("ssm", f"document/{get('DocumentName')}"), {}),
        *(instance(cloud, call, i, "ssm:resourceTag") for i in get("InstanceIds") or []),
    ]


def address(cloud, call: str, get) -> Needs:
    """The address, its new holder and the holder's interface. An address that is not (or no longer) there is not found,
    which has nothing to do with rights: of two that take it away at once, the second is told so.
    """
    allocation, holder, interface = get("AllocationId"), get("InstanceId"), get("NetworkInterfaceId")
    found = [
        a
        for a in ec2_backends[ACCOUNT][REGION].addresses
        if a.allocation_id == allocation or a.association_id == get("AssociationId") is not None
    ]
    if not found:
        return []
    tags = {f"aws:resourcetag/{t['key']}".lower(): t["value"] for a in found for t in a.get_tags()}
    needs = [(call, arn("ec2", f"elastic-ip/{found[0].allocation_id}"), tags)]
    if holder:
        needs.append(instance(cloud, call, holder, "aws:ResourceTag"))
    if interface:
        needs.append((call, arn("ec2", f"network-interface/{interface}"), {}))
    return needs


def new_address(cloud, call: str, get) -> Needs:
    """With tags it needs the right to tag as well."""
    tags = {t["Key"]: t["Value"] for each in get("TagSpecifications") or [] for t in each.get("Tags", [])}
    asked = {f"aws:requesttag/{name}".lower(): value for name, value in tags.items()}
    anywhere = arn("ec2", "elastic-ip/new")
    return [
        (call, anywhere, asked),
        *([("ec2:CreateTags", anywhere, {**asked, "ec2:createaction": "AllocateAddress"})] if tags else []),
    ]


def interface(cloud, call: str, get) -> Needs:
    """The interface, and the instance that gets or loses it. One that is gone has nothing to do with rights."""
    named, attachment = get("NetworkInterfaceId"), get("AttachmentId")
    known = ec2_backends[ACCOUNT][REGION].enis.values()
    found = [i for i in known if i.id == named or (attachment and i.attachment_id == attachment)]
    if not found:
        return []
    tags = {f"aws:resourcetag/{t['key']}".lower(): t["value"] for t in found[0].get_tags()}
    needs = [(call, arn("ec2", f"network-interface/{found[0].id}"), tags)]
    about = get("InstanceId") or (found[0].instance.id if attachment and found[0].instance else None)
    return [*needs, instance(cloud, call, about, "aws:ResourceTag")] if about else needs


RESOURCES: dict[str, Callable[..., Needs]] = {
    "ssm:GetParameter": parameter,
    "ssm:SendCommand": send_command,
    "secretsmanager:GetSecretValue": secret,
    "autoscaling:CompleteLifecycleAction": group,
    "autoscaling:RecordLifecycleActionHeartbeat": group,
    "ec2:AssociateAddress": address,
    "ec2:DisassociateAddress": address,
    "ec2:AttachNetworkInterface": interface,
    "ec2:DetachNetworkInterface": interface,
    "ec2:ModifyNetworkInterfaceAttribute": interface,
    "ec2:AssignPrivateIpAddresses": interface,
    "ec2:UnassignPrivateIpAddresses": interface,
    "sns:Publish": topic,
    "ec2:AllocateAddress": new_address,
}
