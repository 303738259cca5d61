"""A database as its owner has it before Perennial comes: bucket, secret, address, launch template, group of one with its hooks."""
from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from pathlib import Path

import yaml

USER_DATA = Path(__file__).with_name("user_data.sh")


@dataclass
class Database:
    cloud: object
    name: str
    bucket: str
    prefix: str
    api_key: str
    allocation_id: str
    address: str

    group = property(lambda self: self.name)
    document = property(lambda self: f"perennial-{self.name}")
    launch_hook, terminate_hook = "perennial-launch", "perennial-terminate"

    @property
    def url(self) -> str:
        """The stable address that clients use."""
        return f"http://{self.address}:{self.cloud.addresses.port}"

    def settings(self, **changes: object) -> str:
        """The target's settings as YAML; changes replace top-level entries."""
        return yaml.safe_dump({
            "name": self.name, "engine": "weaviate", "url": "http://127.0.0.1:8080", "host_name": "weaviate-0",
            "api_key": {"secret": f"perennial/{self.name}/weaviate-api-key"},  # no data_dir: each instance has a folder of its own
            "repository": {"url": f"s3://{self.bucket}/{self.prefix}", "region": self.cloud.region},
            "auto_scaling": {"group": self.group, "launch_hook": self.launch_hook, "terminate_hook": self.terminate_hook,
                             "document": self.document},
            "endpoint": {"kind": "elastic_ip", "allocation_id": self.allocation_id},
            "backup": {"max_age": "26h", "timeout": "2h"},
            "restore": {"timeout": "2h", "stalled_after": "10m", "attempts": 2, "empty_repository": "allow"},
            "checks": {"min_free_disk_gib": 1, "min_free_memory_percent": 1, "max_load_per_cpu": 100},
            **changes}, sort_keys=False)

    def parameters(self, *, email: str = "operator@example.com", settings: str | None = None, **more: str) -> dict[str, str]:
        """The parameters of infra/template.yaml."""
        return {"TargetName": self.name, "TargetSettings": settings or self.settings(), "GroupName": self.group, "Bucket": self.bucket,
                "Prefix": self.prefix, "AllocationId": self.allocation_id, "AlertEmail": email, **more}

    def set_capacity(self, instances: int) -> None:
        self.cloud.client("autoscaling").set_desired_capacity(AutoScalingGroupName=self.group, DesiredCapacity=instances)

    def members(self) -> dict[str, str]:
        """Instance id -> lifecycle state."""
        return self.cloud.group_members(self.group)

    def holder(self) -> str | None:
        """Who has the address."""
        return self.cloud.client("ec2").describe_addresses(AllocationIds=[self.allocation_id])["Addresses"][0].get("InstanceId")


def create_database(cloud, name: str = "docs", *, capacity: int = 0, bucket: str | None = None, prefix: str = "weaviate",  # noqa: ANN001, PLR0913
                    user_data: str | None = None, heartbeat: int = 3600, retain: bool = True) -> Database:
    """With capacity 0 nothing boots before `set_capacity(1)`, so that the functions can be deployed first."""
    s3, ec2 = cloud.client("s3"), cloud.client("ec2")
    bucket = bucket or f"{name}-backups"
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}})
    api_key = secrets.token_hex(16)
    cloud.client("secretsmanager").create_secret(Name=f"perennial/{name}/weaviate-api-key", SecretString=api_key)
    cloud.instance_env.update(WEAVIATE_API_KEY=api_key, BACKUP_S3_BUCKET=bucket)
    eip = ec2.allocate_address(Domain="vpc", TagSpecifications=[
        {"ResourceType": "elastic-ip", "Tags": [{"Key": "Name", "Value": f"{name}-eip"}]}])
    database = Database(cloud, name, bucket, prefix, api_key, eip["AllocationId"], eip["PublicIp"])
    create_group(cloud, database, capacity, user_data or USER_DATA.read_text(), heartbeat, retain)
    return database


def create_group(cloud, database: Database, capacity: int, user_data: str, heartbeat: int, retain: bool) -> None:  # noqa: ANN001, PLR0913
    ec2 = cloud.client("ec2")
    template = ec2.create_launch_template(LaunchTemplateName=f"{database.name}-database", LaunchTemplateData={
        "ImageId": "ami-12345678", "InstanceType": "c8gd.large", "UserData": base64.b64encode(user_data.encode()).decode()})["LaunchTemplate"]
    hooks = {database.launch_hook: "LAUNCHING", database.terminate_hook: "TERMINATING"}
    cloud.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName=database.group, MinSize=0, MaxSize=1, DesiredCapacity=capacity,
        VPCZoneIdentifier=ec2.describe_subnets()["Subnets"][0]["SubnetId"],
        LaunchTemplate={"LaunchTemplateId": template["LaunchTemplateId"], "Version": "$Latest"},
        LifecycleHookSpecificationList=[
            {"LifecycleHookName": name, "LifecycleTransition": f"autoscaling:EC2_INSTANCE_{transition}", "HeartbeatTimeout": heartbeat,
             "DefaultResult": "ABANDON"} for name, transition in hooks.items()],
        **({"InstanceLifecyclePolicy": {"RetentionTriggers": {"TerminateHookAbandon": "retain"}}} if retain else {}))
