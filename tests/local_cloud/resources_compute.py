"""How the resources of a database's own stack are made: group, launch template, address, network, bucket."""

from __future__ import annotations

import base64

from .account import ACCOUNT, REGION
from .deploy import Made, Maker, creates
from .resources import AT_REST, arn
from .template import TemplateError

NO_NETWORK = "instances are processes on this machine"


@creates(
    "AWS::EC2::LaunchTemplate",
    "LaunchTemplateName LaunchTemplateData VersionDescription",
    TagSpecifications="nobody reads them",
)
def launch_template(make: Maker, p: dict) -> Made:
    data = dict(p["LaunchTemplateData"])
    if make.user_data is not None:  # the real one starts containers
        data["UserData"] = base64.b64encode(make.user_data.encode()).decode()
    if profile := data.get("IamInstanceProfile"):
        make.cloud.instance_role = role_in(make, profile.get("Name") or profile["Arn"].rsplit("/", 1)[1])
    for unknown in ("BlockDeviceMappings", "IamInstanceProfile", "Placement", "Monitoring", "EbsOptimized"):
        data.pop(unknown, None)  # disks are folders; the role is kept above
    made = make.client("ec2").create_launch_template(
        LaunchTemplateName=make.name(p.get("LaunchTemplateName")), LaunchTemplateData=data
    )
    template = made["LaunchTemplate"]
    return Made(
        template["LaunchTemplateId"],
        {"LaunchTemplateId": template["LaunchTemplateId"], "LatestVersionNumber": "1", "DefaultVersionNumber": "1"},
    )


def role_in(make: Maker, profile: str) -> str:
    return make.client("iam").get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"][0][
        "RoleName"
    ]


@creates(
    "AWS::AutoScaling::AutoScalingGroup",
    "AutoScalingGroupName MinSize MaxSize DesiredCapacity LaunchTemplate VPCZoneIdentifier "
    "LifecycleHookSpecificationList InstanceLifecyclePolicy HealthCheckGracePeriod Tags",
    HealthCheckType="there are only EC2 health checks",
    MetricsCollection="there are no group metrics",
    DefaultInstanceWarmup="there is no warm-up",
    InstanceMaintenancePolicy="the group launches and terminates at the same time",
    NewInstancesProtectedFromScaleIn="nothing scales in",
    CapacityRebalance="there is no spot market",
    TerminationPolicies="a group of one has no choice",
)
def group(make: Maker, p: dict) -> Made:
    name, zones = make.name(p.get("AutoScalingGroupName")), p["VPCZoneIdentifier"]
    sizes = {k: int(p[k]) for k in ("MinSize", "MaxSize", "DesiredCapacity", "HealthCheckGracePeriod") if k in p}
    hooks = [
        {**hook, "HeartbeatTimeout": int(hook.get("HeartbeatTimeout", 3600))}
        for hook in p.get("LifecycleHookSpecificationList", [])
    ]
    template = {**p["LaunchTemplate"], "Version": str(p["LaunchTemplate"]["Version"])}
    marks = [{**t, "PropagateAtLaunch": str(t["PropagateAtLaunch"]).lower() == "true"} for t in p.get("Tags", [])]
    make.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName=name,
        **sizes,
        LaunchTemplate=template,
        LifecycleHookSpecificationList=hooks,
        Tags=marks,
        VPCZoneIdentifier=",".join(zones) if isinstance(zones, list) else zones,
        **({"InstanceLifecyclePolicy": p["InstanceLifecyclePolicy"]} if "InstanceLifecyclePolicy" in p else {}),
    )
    return Made(
        name, {"AutoScalingGroupARN": arn("autoscaling", f"autoScalingGroup:local:autoScalingGroupName/{name}")}
    )


@creates(
    "AWS::AutoScaling::LifecycleHook",
    "AutoScalingGroupName LifecycleHookName LifecycleTransition HeartbeatTimeout DefaultResult NotificationMetadata",
)
def lifecycle_hook(make: Maker, p: dict) -> Made:
    name = make.name(p.get("LifecycleHookName"))
    timeout = {"HeartbeatTimeout": int(p["HeartbeatTimeout"])} if "HeartbeatTimeout" in p else {}
    make.client("autoscaling").put_lifecycle_hook(**{**p, **timeout, "LifecycleHookName": name})
    return Made(name)


@creates("AWS::EC2::EIP", "Domain Tags")
def elastic_ip(make: Maker, p: dict) -> Made:
    client = make.client("ec2")
    made = client.allocate_address(Domain="vpc")
    if p.get("Tags"):
        client.create_tags(Resources=[made["AllocationId"]], Tags=p["Tags"])
    return Made(made["PublicIp"], {"AllocationId": made["AllocationId"], "PublicIp": made["PublicIp"]})


@creates("AWS::EC2::NetworkInterface", "SubnetId PrivateIpAddress GroupSet Description Tags")
def network_interface(make: Maker, p: dict) -> Made:
    address = {"PrivateIpAddress": p["PrivateIpAddress"]} if "PrivateIpAddress" in p else {}
    made = make.client("ec2").create_network_interface(
        SubnetId=p["SubnetId"],
        Groups=p.get("GroupSet", []),
        Description=p.get("Description", ""),
        TagSpecifications=[{"ResourceType": "network-interface", "Tags": p.get("Tags", [])}],
        **address,
    )["NetworkInterface"]
    found = made["NetworkInterfaceId"]
    return Made(found, {"Id": found, "PrimaryPrivateIpAddress": made["PrivateIpAddress"]})


@creates(
    "AWS::EC2::SecurityGroup",
    "GroupName GroupDescription VpcId Tags",
    SecurityGroupIngress=NO_NETWORK,
    SecurityGroupEgress=NO_NETWORK,
)
def security_group(make: Maker, p: dict) -> Made:
    vpc = {"VpcId": p["VpcId"]} if "VpcId" in p else {}
    made = make.client("ec2").create_security_group(
        GroupName=make.name(p.get("GroupName")), Description=p["GroupDescription"], **vpc
    )
    return Made(made["GroupId"], {"GroupId": made["GroupId"]})


@creates(
    "AWS::EC2::SecurityGroupIngress",
    "",
    **dict.fromkeys(
        ["GroupId", "IpProtocol", "FromPort", "ToPort", "CidrIp", "SourceSecurityGroupId", "Description"], NO_NETWORK
    ),
)
def ingress(make: Maker, _: dict) -> Made:
    return Made(make.name())


@creates("AWS::IAM::InstanceProfile", "InstanceProfileName Roles Path")
def instance_profile(make: Maker, p: dict) -> Made:
    name, client = make.name(p.get("InstanceProfileName")), make.client("iam")
    made = client.create_instance_profile(InstanceProfileName=name, Path=p.get("Path", "/"))["InstanceProfile"]["Arn"]
    for role in p["Roles"]:
        client.add_role_to_instance_profile(InstanceProfileName=name, RoleName=role)
    return Made(name, {"Arn": made})


@creates(
    "AWS::S3::Bucket",
    "BucketName VersioningConfiguration NotificationConfiguration",
    BucketEncryption=AT_REST,
    PublicAccessBlockConfiguration="only this machine can reach it",
    OwnershipControls="there is one account",
    LifecycleConfiguration="nothing here lives for days",
    Tags="nobody reads them",
)
def bucket(make: Maker, p: dict) -> Made:
    name, client = p.get("BucketName") or make.name().lower(), make.client("s3")
    client.create_bucket(Bucket=name)
    if "VersioningConfiguration" in p:
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration=p["VersioningConfiguration"])
    notifications = p.get("NotificationConfiguration", {})
    if set(notifications) - {"EventBridgeConfiguration"}:
        raise TemplateError("the local cloud sends S3 events to EventBridge only")
    if (
        str(notifications.get("EventBridgeConfiguration", {}).get("EventBridgeEnabled", True)).lower() == "true"
        and notifications
    ):
        client.put_bucket_notification_configuration(
            Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
    return Made(
        name,
        {
            "Arn": f"arn:aws:s3:::{name}",
            "DomainName": f"{name}.s3.amazonaws.com",
            "RegionalDomainName": f"{name}.s3.{REGION}.amazonaws.com",
        },
    )


@creates(
    "AWS::S3::BucketPolicy", "", Bucket="the S3 server knows one user", PolicyDocument="the S3 server knows one user"
)
def bucket_policy(make: Maker, _: dict) -> Made:
    return Made(make.name())


@creates("AWS::KMS::Key", "Description", KeyPolicy=AT_REST, EnableKeyRotation=AT_REST, Tags="nobody reads them")
def key(make: Maker, p: dict) -> Made:
    made = make.client("kms").create_key(Description=p.get("Description", ""))["KeyMetadata"]
    return Made(made["KeyId"], {"Arn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{made['KeyId']}", "KeyId": made["KeyId"]})
