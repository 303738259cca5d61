"""EC2: instance states that take time, and the rules of Elastic IPs in a VPC. Network interfaces: interfaces.py."""

from __future__ import annotations

import copy

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_ip_addresses import ElasticAddress
from moto.ec2.models.instances import Instance, InstanceState
from moto.ec2.responses import EC2Response

from .machine import Machine

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}


def set_state(cloud, instance: Instance, name: str) -> None:
    instance._state, backend = InstanceState(name, CODES[name]), instance.ec2_backend
    arn = f"arn:aws:ec2:{backend.region_name}:{backend.account_id}:instance/{instance.id}"
    cloud.bus.emit(
        "aws.ec2", "EC2 Instance State-change Notification", {"instance-id": instance.id, "state": name}, [arn]
    )


def power_off(cloud, instance: Instance, state: str) -> None:
    """Its processes and its disks are gone."""
    set_state(cloud, instance, state)
    cloud.machines[instance.id].power_off()
    cloud.addresses.sync()


def boot(cloud, instance: Instance) -> None:
    if instance._state.name == "pending":
        set_state(cloud, instance, "running")
        cloud.machines[instance.id].boot()


def install(cloud) -> None:
    install_instances(cloud)
    install_addresses(cloud)


def install_instances(cloud) -> None:
    @cloud.patches.extend(EC2Backend)
    def run_instances(base, backend, image_id, count, user_data, groups, **kw):
        group = cloud.launching
        if cloud.no_capacity:
            raise EC2ClientError("InsufficientInstanceCapacity", "We currently do not have sufficient capacity.")
        if group and group.ec2_launch_template:  # moto takes version 1 and leaves out what follows
            version = group.ec2_launch_template.get_version(group.launch_template_version)
            kw["launch_template"]["Version"] = str(version.number)
            interface = (version.data.get("NetworkInterfaces") or [{}])[0]
            kw["security_group_ids"] = list(interface.get("Groups") or version.data.get("SecurityGroupIds") or [])
            kw["metadata_options"] = version.data.get("MetadataOptions") or {}
        reservation = base(image_id, count, user_data, groups, **kw)
        for instance in reservation.instances:
            launched_with(instance, kw.get("launch_template"))
            cloud.machines[instance.id] = Machine(cloud, instance)
            set_state(cloud, instance, "pending")
            cloud.later(cloud.timing.boot, boot, cloud, instance)
        return reservation

    @cloud.patches.extend(Instance)
    def terminate(base, instance):
        if instance._state.name in ("shutting-down", "terminated"):
            return copy.copy(instance._state)
        interfaces = list(instance.nics.values())
        previous = base()  # deletes those that go with their instance
        for interface in [i for i in interfaces if not i.delete_on_termination]:
            instance.detach_eni(interface)
        for eip in [a for a in instance.ec2_backend.addresses if a.association_id and a.instance is instance]:
            instance.ec2_backend.disassociate_address(association_id=eip.association_id)
        power_off(cloud, instance, "shutting-down")
        cloud.later(cloud.timing.shutdown, finish_shutdown, cloud, instance)
        return previous

    @cloud.patches.extend(Instance)
    def stop(base, instance):
        previous = base()
        power_off(cloud, instance, "stopped")
        return previous

    @cloud.patches.extend(Instance)
    def start(base, instance):
        if instance._state.name != "stopped":
            raise EC2ClientError(
                "IncorrectInstanceState",
                f"The instance '{instance.id}' is not in a state from which it can be started.",
            )
        previous = base()
        set_state(cloud, instance, "pending")
        cloud.later(cloud.timing.boot, boot, cloud, instance)
        return previous


def finish_shutdown(cloud, instance: Instance) -> None:
    if instance._state.name == "shutting-down":
        set_state(cloud, instance, "terminated")


def launched_with(instance: Instance, template: dict | None) -> None:
    """What moto leaves out: its own interface goes with the instance, and has the tags that the launch template says."""
    own = instance.nics[0]
    own.delete_on_termination = True
    if template:
        version = instance.ec2_backend._get_template_from_args(template)
        for spec in version.data.get("TagSpecifications") or []:
            if spec["ResourceType"] == "network-interface":
                own.add_tags({tag["Key"]: tag["Value"] for tag in spec["Tags"]})


def install_addresses(cloud) -> None:
    cloud.patches.set(ElasticAddress, "instance_id", property(lambda self: self.instance.id if self.instance else None))
    cloud.patches.set(ElasticAddress, "network_interface_id", property(lambda self: self.eni.id if self.eni else None))

    @cloud.patches.extend(EC2Backend)
    def associate_address(base, backend, instance=None, eni=None, address=None, allocation_id=None, reassociate=False):
        eip = (backend.address_by_allocation([allocation_id]) if allocation_id else backend.address_by_ip([address]))[0]
        holder = instance or eni.instance
        if holder and holder._state.name not in ("running", "stopped"):
            raise EC2ClientError(
                "InvalidInstanceID",
                f"The {holder._state.name} instance '{holder.id}' is not in a valid state for this operation.",
            )
        target = eni or instance.nics[0]
        if eip.eni is not target:
            in_the_way = [a for a in backend.addresses if a.association_id and (a is eip or a.eni is target)]
            if any(a is eip for a in in_the_way) and not reassociate:
                raise EC2ClientError(
                    "Resource.AlreadyAssociated",
                    f"resource {eip.allocation_id} is already associated with associate-id {eip.association_id}",
                )
            for other in in_the_way:
                backend.disassociate_address(association_id=other.association_id)
            base(instance=holder, eni=target, address=eip.public_ip, reassociate=True)
        cloud.addresses.sync()
        return eip

    @cloud.patches.extend(EC2Response, "associate_address")
    def default_reassociation(base, response):
        if "AllowReassociation" not in response._get_params():
            response._get_params()["AllowReassociation"] = True  # the default in a VPC; moto takes False
        return base()

    @cloud.patches.extend(EC2Backend)
    def disassociate_address(base, backend, address=None, association_id=None):
        result = base(address=address, association_id=association_id)
        cloud.addresses.sync()
        return result

    @cloud.patches.extend(EC2Backend)
    def release_address(base, backend, *args, **kw):
        held = backend.address_by_allocation([kw.get("allocation_id")])[0] if kw.get("allocation_id") else None
        if held and held.association_id:
            raise EC2ClientError("InvalidIPAddress.InUse", f"Address {held.public_ip} is in use.")
        return base(*args, **kw)
