"""A database as its owner has it before Perennial comes: bucket, secret, address, launch template, group of one with
its hooks.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import yaml

from .waiting import wait_for

GROUP_TEMPLATE = Path(__file__).parents[2] / "infra" / "group.yaml"


@dataclass
class Database:
    cloud: object
    name: str
    bucket: str
    prefix: str
    replica: str  # the bucket of its replica, below the same prefix; empty for none
    api_key: str
    endpoint: dict[str, str]  # the section of the settings
    address: str  # what EC2 calls it; clients of this machine use `url`
    subnet: dict  # where its instances are launched

    engine = property(lambda self: self.cloud.engine)
    secret = property(lambda self: secret_name(self.name, self.engine.name))
    pointer = property(lambda self: f"latest_{self.engine.name}_backup.manifest.json")  # its key below the prefix
    group = property(lambda self: self.name)
    kind_of_address = property(lambda self: self.endpoint["kind"].replace("_", " ").replace("ip", "IP"))
    document = property(lambda self: f"perennial-{self.name}")
    launch_hook, terminate_hook = "perennial-launch", "perennial-terminate"

    @property
    def url(self) -> str:
        """The stable address that clients use."""
        return f"{self.engine.scheme}://{self.cloud.addresses.reach(self.address)}:{self.cloud.addresses.port}"

    @property
    def allocation_id(self) -> str:
        return self.endpoint["allocation_id"]

    def settings(self, **changes: object) -> str:
        """The target's settings as YAML; changes replace top-level entries."""
        return yaml.safe_dump(
            {
                "name": self.name,
                "engine": self.engine.name,
                # Neither url nor data_dir: each instance has a port and a folder of its own.
                "api_key": {"secret": self.secret},
                **self.engine.settings,
                "repository": {"url": f"s3://{self.bucket}/{self.prefix}", "region": self.cloud.region},
                "auto_scaling": {
                    "group": self.group,
                    "launch_hook": self.launch_hook,
                    "terminate_hook": self.terminate_hook,
                    "document": self.document,
                },
                "endpoint": self.endpoint,
                "backup": {"max_age": "26h", "timeout": "2h"},
                "restore": {"timeout": "2h", "stalled_after": "10m", "attempts": 2, "empty_repository": "allow"},
                "checks": {"min_free_disk_gib": 1, "min_free_memory_percent": 1, "max_load_per_cpu": 100},
                **({"replicas": [f"s3://{self.replica}/{self.prefix}"]} if self.replica else {}),
                **changes,
            },
            sort_keys=False,
        )

    def parameters(
        self, *, email: str = "operator@example.com", settings: str | None = None, **more: str
    ) -> dict[str, str]:
        """The parameters of infra/template.yaml."""
        kind, named = self.endpoint["kind"], list(self.endpoint.values())[1]
        parameter = {
            "elastic_ip": "AllocationId",
            "network_interface": "NetworkInterfaceId",
            "private_ip": "PrivateIp",
        }[kind]
        return {
            "TargetName": self.name,
            "TargetSettings": settings or self.settings(),
            "GroupName": self.group,
            "Bucket": self.bucket,
            "Prefix": self.prefix,
            "ReplicaBucket": self.replica,
            "ReplicaPrefix": self.prefix,
            parameter: named,
            "AlertEmail": email,
            **more,
        }

    def set_capacity(self, instances: int) -> None:
        """As an update of the stack's Capacity does it."""
        self.cloud.client("autoscaling").update_auto_scaling_group(
            AutoScalingGroupName=self.group, MinSize=instances, MaxSize=instances, DesiredCapacity=instances
        )

    def set_heartbeat(self, seconds: int) -> None:
        """The time-out of both hooks; for waits that have not begun."""
        client = self.cloud.client("autoscaling")
        for hook in client.describe_lifecycle_hooks(AutoScalingGroupName=self.group)["LifecycleHooks"]:
            client.put_lifecycle_hook(
                **{k: v for k, v in hook.items() if k != "GlobalTimeout"} | {"HeartbeatTimeout": seconds}
            )

    def members(self) -> dict[str, str]:
        """Instance id -> lifecycle state."""
        return self.cloud.group_members(self.group)

    def wait_for_state(self, state: str, other_than: Collection[str] = (), limit: float = 15) -> str:
        """The first instance in that lifecycle state."""
        return wait_for(
            f"an instance in {state}",
            lambda: next((i for i, s in self.members().items() if s == state and i not in other_than), None),
            limit,
        )

    def complete(self, instance: str, result: str = "CONTINUE", hook: str = launch_hook, **by: str) -> None:
        """Answer a hook, by the instance or, with LifecycleActionToken=..., by the token."""
        self.cloud.client("autoscaling").complete_lifecycle_action(
            AutoScalingGroupName=self.group,
            LifecycleHookName=hook,
            LifecycleActionResult=result,
            **(by or {"InstanceId": instance}),
        )

    def holder(self) -> str | None:
        """Who has the address: only once it is attached, where it has to be."""
        ec2 = self.cloud.client("ec2")
        if self.endpoint["kind"] == "elastic_ip":
            return ec2.describe_addresses(AllocationIds=[self.allocation_id])["Addresses"][0].get("InstanceId")
        if self.endpoint["kind"] == "network_interface":
            attachment = self.interface().get("Attachment", {})
            return attachment.get("InstanceId") if attachment.get("Status") == "attached" else None
        by_address = [{"Name": "addresses.private-ip-address", "Values": [self.address]}]
        found = ec2.describe_network_interfaces(Filters=by_address)["NetworkInterfaces"]
        return found[0]["Attachment"]["InstanceId"] if found else None

    def interface(self) -> dict:
        """The network interface that is the address."""
        ids = [self.endpoint["network_interface_id"]]
        return self.cloud.client("ec2").describe_network_interfaces(NetworkInterfaceIds=ids)["NetworkInterfaces"][0]

    def pin(self, subnet_id: str) -> None:
        """The group launches there from now on."""
        self.cloud.client("autoscaling").update_auto_scaling_group(
            AutoScalingGroupName=self.group, VPCZoneIdentifier=subnet_id
        )


def secret_name(target: str, engine: str) -> str:
    return f"perennial/{target}/{engine}-api-key"


def create_database(
    cloud,
    name: str = "docs",
    *,
    capacity: int = 0,
    bucket: str | None = None,
    prefix: str | None = None,
    user_data: str | None = None,
    heartbeat: int | None = None,
    endpoint: str | None = None,
    replica: str = "",
) -> Database:
    """Deploys infra/group.yaml. With capacity 0 nothing boots before `set_capacity(1)`, so that the functions can be
    deployed first.

    prefix: the engine's name when None. user_data: instead of the engine's. heartbeat: the hooks' time-out, instead of
    the template's. endpoint: the kind of address, the engine's own when None. replica: the bucket of a replica, made here.
    """
    engine, ec2 = cloud.engine, cloud.client("ec2")
    bucket, prefix, endpoint = bucket or f"{name}-backups", prefix or engine.name, endpoint or engine.endpoint
    api_key = secrets.token_hex(16)
    secret = cloud.client("secretsmanager").create_secret(Name=secret_name(name, engine.name), SecretString=api_key)[
        "ARN"
    ]
    cloud.instance_env.update(ENGINE_API_KEY=api_key, BUCKET=bucket, PREFIX=prefix)
    subnet = ec2.describe_subnets()["Subnets"][0]
    clients = ec2.create_security_group(
        GroupName=f"{name}-clients", Description="may use the database", VpcId=subnet["VpcId"]
    )["GroupId"]
    private_ip = "" if endpoint == "elastic_ip" else str(ipaddress.ip_network(subnet["CidrBlock"])[50])
    if replica:
        cloud.client("s3").create_bucket(Bucket=replica)
    stack = cloud.deploy(
        GROUP_TEMPLATE,
        {
            "TargetName": name,
            "Engine": engine.name,
            "GroupName": name,
            "Capacity": "0",
            "VpcId": subnet["VpcId"],
            "SubnetIds": subnet["SubnetId"],
            "ClientSecurityGroupId": clients,
            "Bucket": bucket,
            "Prefix": prefix,
            "AgentSha256": "0" * 64,
            "EngineSecretArn": secret,
            "Endpoint": endpoint,
            "PrivateIp": private_ip,
            "AddressName": f"{name}-address",
            "ReplicaBucket": replica,
            "ReplicaPrefix": prefix,
        },
        stack=f"{name}-database",
        user_data=user_data or engine.user_data,
    )
    named = {
        "elastic_ip": lambda: {"allocation_id": stack.outputs["AllocationId"]},
        "network_interface": lambda: {"network_interface_id": stack.outputs["NetworkInterfaceId"]},
        "private_ip": lambda: {"address": private_ip},
    }[endpoint]
    settings = {"kind": endpoint, **named()}
    database = Database(cloud, name, bucket, prefix, replica, api_key, settings, stack.outputs["Address"], subnet)
    if heartbeat:
        database.set_heartbeat(heartbeat)
    if capacity:
        database.set_capacity(capacity)
    return database
