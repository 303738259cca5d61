"""Network interfaces and secondary private addresses: the rules of a VPC, and attachments that take time.

A guest configures what comes to it by itself, as Amazon Linux does. `machine.lets_go = False` is a guest that holds on
to an interface until it is detached by force, or until the instance ends.
"""

from __future__ import annotations

import ipaddress

from moto.core.responses import EmptyResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_network_interfaces import Attachment, NetworkInterface
from moto.ec2.models.instances import Instance
from moto.ec2.responses import EC2Response

from .addresses import travelling


def install(cloud) -> None:
    install_looks(cloud)
    install_attachments(cloud)
    install_private_addresses(cloud)


def install_looks(cloud) -> None:
    """What DescribeNetworkInterfaces says and finds."""
    cloud.patches.set(NetworkInterface, "attachment_state", "attached")

    def attachment(interface: NetworkInterface) -> Attachment | None:
        if not interface.attachment_id:
            return None
        shown = Attachment(interface)
        shown.status = interface.attachment_state
        return shown

    cloud.patches.set(NetworkInterface, "attachment", property(attachment))

    @cloud.patches.extend(NetworkInterface)
    def get_filter_value(base, interface, filter_name, method_name=None):
        if filter_name == "addresses.private-ip-address":  # moto knows the primary one only
            return [p["PrivateIpAddress"] for p in interface.private_ip_addresses]
        return base(filter_name, method_name)


def configure(cloud, interface: NetworkInterface) -> None:
    """The guest's part, when it has had the time; also what it no longer has."""
    machine = cloud.machines.get(interface.instance.id) if interface.instance else None
    if machine and machine.up_since is not None:
        machine.configured |= set(travelling(interface))
    cloud.addresses.sync()


# ---- attaching and detaching -----------------------------------------------------------------------------------------


def refuse_attachment(interface: NetworkInterface, instance: Instance, device_index: int) -> None:
    if interface.instance:
        raise EC2ClientError("InvalidNetworkInterface.InUse", f"Interface: [{interface.id}] in use.")
    if interface.availability_zone != instance._placement.zone:
        raise EC2ClientError(
            "InvalidParameterCombination",
            "You may not attach a network interface to an instance if they are not in the same availability zone",
        )
    if instance._state.name not in ("running", "stopped"):
        raise EC2ClientError("IncorrectState", f"Instance '{instance.id}' is not 'running' or 'stopped'.")
    if device_index in instance.nics:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Instance '{instance.id}' already has an interface attached at device index '{device_index}'.",
        )


def install_attachments(cloud) -> None:
    def arrived(interface: NetworkInterface, attachment_id: str) -> None:
        if interface.attachment_id == attachment_id and interface.attachment_state == "attaching":
            interface.attachment_state = "attached"
            cloud.later(cloud.timing.guest_network, configure, cloud, interface)

    def gone(interface: NetworkInterface, attachment_id: str) -> None:
        if interface.attachment_id == attachment_id:
            interface.instance.detach_eni(interface)

    @cloud.patches.extend(EC2Backend)
    def attach_network_interface(base, backend, eni_id, instance_id, device_index):
        interface, instance = backend.get_network_interface(eni_id), backend.get_instance(instance_id)
        refuse_attachment(interface, instance, int(device_index))
        base(eni_id, instance_id, device_index)
        interface.attachment_state, interface.delete_on_termination = "attaching", False
        cloud.later(cloud.timing.attach, arrived, interface, interface.attachment_id)
        return interface.attachment

    @cloud.patches.extend(EC2Response)
    def detach_network_interface(base, response):
        attachment_id, force = response._get_param("AttachmentId"), response._get_bool_param("Force", False)
        found = [i for i in response.ec2_backend.enis.values() if i.attachment_id == attachment_id]
        if not found:
            return base()  # which says so
        interface = found[0]
        if interface.device_index == 0:
            raise EC2ClientError("OperationNotPermitted", "The network interface at device index 0 cannot be detached.")
        if interface.attachment_state == "detaching" and not force:
            raise EC2ClientError("IncorrectState", f"'{attachment_id}' is not 'attached'.")
        interface.attachment_state = "detaching"
        machine = cloud.machines[interface.instance.id]
        if force or machine.lets_go or machine.up_since is None:
            cloud.later(cloud.timing.attach, gone, interface, attachment_id)
        return EmptyResult()

    @cloud.patches.extend(Instance)
    def detach_eni(base, instance, eni):
        machine = cloud.machines.get(instance.id)
        if machine:
            machine.configured -= set(travelling(eni))
        base(eni)
        eni.attachment_state = "attached"  # of the next attachment, if a launch makes it
        cloud.addresses.sync()

    @cloud.patches.extend(EC2Response)
    def modify_network_interface_attribute(base, response):
        attachment = response._get_param("Attachment") or {}
        if "DeleteOnTermination" in attachment:
            interface = response.ec2_backend.get_network_interface(response._get_param("NetworkInterfaceId"))
            if interface.attachment_id != attachment.get("AttachmentId"):
                raise EC2ClientError(
                    "InvalidAttachmentID.NotFound", f"'{interface.id}' has no attachment {attachment}."
                )
            interface.delete_on_termination = str(attachment["DeleteOnTermination"]).lower() == "true"
        return base()

    @cloud.patches.extend(EC2Backend)
    def delete_network_interface(base, backend, eni_id):
        interface = backend.enis.get(eni_id)
        ending = interface and interface.instance and interface.delete_on_termination
        if interface and interface.instance and not ending:
            raise EC2ClientError("InvalidParameterValue", f"Network interface '{eni_id}' is currently in use.")
        return base(eni_id)


# ---- secondary private addresses -------------------------------------------------------------------------------------


def take(cloud, interface: NetworkInterface, address: str) -> None:
    interface.private_ip_addresses = [p for p in interface.private_ip_addresses if p["PrivateIpAddress"] != address]
    if interface.instance and interface.instance.id in cloud.machines:
        cloud.machines[interface.instance.id].configured.discard(address)


def install_private_addresses(cloud) -> None:
    @cloud.patches.extend(EC2Response)
    def assign_private_ip_addresses(base, response):
        backend = response.ec2_backend
        mine = backend.get_network_interface(response._get_param("NetworkInterfaceId"))
        may_move = response._get_bool_param("AllowReassignment", False)
        for address in response._get_param("PrivateIpAddresses", []):
            block = ipaddress.ip_network(mine.subnet.cidr_block)
            place = int(ipaddress.ip_address(address)) - int(block.network_address)
            if not 3 < place < block.num_addresses - 1:
                raise EC2ClientError(
                    "InvalidParameterValue", f"Address {address} does not fall within the subnet's address range."
                )
            for other in [e for e in backend.enis.values() if e.id != mine.id and e.vpc_id == mine.vpc_id]:
                if address not in [p["PrivateIpAddress"] for p in other.private_ip_addresses]:
                    continue
                if not may_move or address == other.private_ip_address:
                    raise EC2ClientError("InvalidParameterValue", f"[{address}] assigned, but move is not allowed.")
                take(cloud, other, address)
        result = base()
        cloud.addresses.sync()
        cloud.later(cloud.timing.guest_network, configure, cloud, mine)
        return result

    @cloud.patches.extend(EC2Response)
    def unassign_private_ip_addresses(base, response):
        mine = response.ec2_backend.get_network_interface(response._get_param("NetworkInterfaceId"))
        secondary = {p["PrivateIpAddress"] for p in mine.private_ip_addresses} - {mine.private_ip_address}
        wanted = response._get_param("PrivateIpAddresses", [])
        if not set(wanted) <= secondary:
            raise EC2ClientError(
                "InvalidParameterValue", f"Some of the specified addresses are not assigned to interface {mine.id}"
            )
        for address in wanted:
            take(cloud, mine, address)
        result = base()
        cloud.addresses.sync()
        return result
