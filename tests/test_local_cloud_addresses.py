"""The local cloud's own rules: network interfaces and secondary private addresses. They are AWS's."""

from __future__ import annotations

import socket
import sys

import pytest

from local_cloud import refusal, wait_for

SERVER = """
import http.server, sys
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


@pytest.fixture
def two(request, cloud):
    """A database with that kind of address, and two running instances, each with a server that tells its name."""
    database = cloud.create_database_stack(user_data="sleep 600 &", heartbeat=7200, endpoint=request.param)
    cloud.client("autoscaling").update_auto_scaling_group(AutoScalingGroupName=database.group, MaxSize=2)
    cloud.client("autoscaling").set_desired_capacity(AutoScalingGroupName=database.group, DesiredCapacity=2)
    waiting = wait_for("two instances", lambda: [i for i, s in database.members().items() if s == "Pending:Wait"][1:])
    instances = list(database.members())
    assert waiting
    for instance in instances:
        machine = cloud.machine(instance)
        (machine.folder / "name").write_text(instance)
        machine.start(sys.executable, "-c", SERVER, str(machine.engine_port))
    return database, instances


def answering(cloud, database) -> str | None:
    """Who answers at the address."""
    try:
        place = (cloud.addresses.reach(database.address), cloud.addresses.port)
        with socket.create_connection(place, timeout=2) as connection:
            connection.sendall(b"GET /name HTTP/1.0\r\n\r\n")
            return connection.makefile().read().splitlines()[-1]
    except (ConnectionError, IndexError):
        return None


def answers(cloud, database, instance) -> None:
    wait_for(f"an answer of {instance}", lambda: answering(cloud, database) == instance)


@pytest.mark.parametrize("two", ["network_interface"], indirect=True)
def test_an_interface_leads_to_its_instance_once_the_guest_has_set_it_up(cloud, two):
    database, (old, new) = two
    ec2, interface = cloud.client("ec2"), database.endpoint["network_interface_id"]
    assert answering(cloud, database) is None and database.interface()["Status"] == "available"
    made = ec2.attach_network_interface(NetworkInterfaceId=interface, InstanceId=old, DeviceIndex=1)
    shown = database.interface()["Attachment"]
    assert (shown["Status"], shown["DeviceIndex"], shown["DeleteOnTermination"]) == ("attaching", 1, False)
    answers(cloud, database, old)
    assert database.holder() == old
    again = {"NetworkInterfaceId": interface, "DeviceIndex": 1}
    assert refusal(ec2.attach_network_interface, **again, InstanceId=old) == "InvalidNetworkInterface.InUse"
    assert refusal(ec2.attach_network_interface, **again, InstanceId=new) == "InvalidNetworkInterface.InUse"
    ec2.detach_network_interface(AttachmentId=made["AttachmentId"])
    assert database.interface()["Attachment"]["Status"] == "detaching"
    wait_for("its end", lambda: database.interface()["Status"] == "available")
    assert answering(cloud, database) is None
    late = refusal(ec2.detach_network_interface, AttachmentId=made["AttachmentId"])
    assert late == "InvalidAttachmentID.NotFound"
    ec2.attach_network_interface(**again, InstanceId=new)
    answers(cloud, database, new)


@pytest.mark.parametrize("two", ["network_interface"], indirect=True)
def test_what_cannot_be_attached_is_refused(cloud, two):
    database, (old, new) = two
    ec2 = cloud.client("ec2")
    other = next(
        s for s in ec2.describe_subnets()["Subnets"] if s["AvailabilityZone"] != database.subnet["AvailabilityZone"]
    )
    abroad = ec2.create_network_interface(SubnetId=other["SubnetId"])["NetworkInterface"]["NetworkInterfaceId"]
    here = ec2.create_network_interface(SubnetId=database.subnet["SubnetId"])["NetworkInterface"]["NetworkInterfaceId"]
    attach = ec2.attach_network_interface
    wrong_zone = refusal(attach, NetworkInterfaceId=abroad, InstanceId=old, DeviceIndex=1)
    assert wrong_zone == "InvalidParameterCombination"
    assert refusal(attach, NetworkInterfaceId=here, InstanceId=old, DeviceIndex=0) == "InvalidParameterValue"
    cloud.kill(new)
    assert refusal(attach, NetworkInterfaceId=here, InstanceId=new, DeviceIndex=1) == "IncorrectState"
    attach(NetworkInterfaceId=here, InstanceId=old, DeviceIndex=1)
    assert refusal(ec2.delete_network_interface, NetworkInterfaceId=here) == "InvalidParameterValue"
    own = ec2.describe_instances(InstanceIds=[old])["Reservations"][0]["Instances"][0]["NetworkInterfaces"]
    primary = next(i for i in own if i["Attachment"]["DeviceIndex"] == 0)["Attachment"]["AttachmentId"]
    assert refusal(ec2.detach_network_interface, AttachmentId=primary) == "OperationNotPermitted"


@pytest.mark.parametrize("two", ["network_interface"], indirect=True)
def test_a_guest_that_holds_on_is_overcome_by_force(cloud, two):
    database, (old, _) = two
    ec2, interface = cloud.client("ec2"), database.endpoint["network_interface_id"]
    made = ec2.attach_network_interface(NetworkInterfaceId=interface, InstanceId=old, DeviceIndex=1)["AttachmentId"]
    answers(cloud, database, old)
    cloud.machine(old).lets_go = False
    ec2.detach_network_interface(AttachmentId=made)
    assert refusal(ec2.detach_network_interface, AttachmentId=made) == "IncorrectState"
    assert database.interface()["Attachment"]["Status"] == "detaching" and answering(cloud, database) == old
    ec2.detach_network_interface(AttachmentId=made, Force=True)
    wait_for("its end", lambda: database.interface()["Status"] == "available")


@pytest.mark.parametrize("two", ["network_interface"], indirect=True)
def test_an_interface_outlives_its_instance_unless_it_is_deleted_with_it(cloud, two):
    database, (old, new) = two
    ec2, interface = cloud.client("ec2"), database.endpoint["network_interface_id"]

    def attach(instance: str) -> str:
        given = {"NetworkInterfaceId": interface, "InstanceId": instance, "DeviceIndex": 1}
        return ec2.attach_network_interface(**given)["AttachmentId"]

    attach(old)
    answers(cloud, database, old)
    cloud.kill(old)
    assert database.interface()["Status"] == "available" and answering(cloud, database) is None
    attachment = attach(new)
    ec2.modify_network_interface_attribute(
        NetworkInterfaceId=interface, Attachment={"AttachmentId": attachment, "DeleteOnTermination": True}
    )
    assert database.interface()["Attachment"]["DeleteOnTermination"] is True
    cloud.kill(new)
    gone = refusal(ec2.describe_network_interfaces, NetworkInterfaceIds=[interface])
    assert gone == "InvalidNetworkInterfaceID.NotFound"


@pytest.mark.parametrize("two", ["private_ip"], indirect=True)
def test_a_private_address_moves_within_its_subnet(cloud, two):
    database, (old, new) = two
    ec2 = cloud.client("ec2")
    own = {i: cloud.machine(i).instance.nics[0].id for i in (old, new)}

    def assign(instance: str, address: str = database.address, **more: object) -> dict:
        return {"NetworkInterfaceId": own[instance], "PrivateIpAddresses": [address], **more}

    ec2.assign_private_ip_addresses(**assign(old))
    answers(cloud, database, old)
    assert database.holder() == old
    assert refusal(ec2.assign_private_ip_addresses, **assign(new)) == "InvalidParameterValue"
    ec2.assign_private_ip_addresses(**assign(new, AllowReassignment=True))
    answers(cloud, database, new)
    assert database.holder() == new
    assert refusal(ec2.unassign_private_ip_addresses, **assign(old)) == "InvalidParameterValue"
    ec2.unassign_private_ip_addresses(**assign(new))
    assert database.holder() is None and answering(cloud, database) is None
    outside = refusal(ec2.assign_private_ip_addresses, **assign(new, "172.31.250.1"))
    assert outside == "InvalidParameterValue"
    primary = cloud.machine(old).instance.nics[0].private_ip_address
    taken = refusal(ec2.assign_private_ip_addresses, **assign(new, primary, AllowReassignment=True))
    assert taken == "InvalidParameterValue"
    ec2.assign_private_ip_addresses(**assign(old))
    answers(cloud, database, old)
    cloud.kill(old)
    assert database.holder() is None and answering(cloud, database) is None


@pytest.mark.parametrize("two", ["elastic_ip", "network_interface", "private_ip"], indirect=True)
def test_a_stopped_instance_keeps_its_address_until_it_ends(cloud, two):
    database, (old, _) = two
    ec2, own = cloud.client("ec2"), cloud.machine(old).instance.nics[0].id
    if database.endpoint["kind"] == "elastic_ip":
        ec2.associate_address(AllocationId=database.allocation_id, NetworkInterfaceId=own)
    elif database.endpoint["kind"] == "network_interface":
        interface = database.endpoint["network_interface_id"]
        ec2.attach_network_interface(NetworkInterfaceId=interface, InstanceId=old, DeviceIndex=1)
    else:
        ec2.assign_private_ip_addresses(NetworkInterfaceId=own, PrivateIpAddresses=[database.address])
    answers(cloud, database, old)
    ec2.stop_instances(InstanceIds=[old])
    assert (database.holder(), answering(cloud, database)) == (old, None)
    cloud.kill(old)
    assert database.holder() is None
