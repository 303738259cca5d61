//! Looking at the address, of whatever kind it is.

use perennial_shared::aws::AwsError;
use perennial_shared::aws::ec2::{Ec2Api, Instance};
use perennial_shared::settings::{ElasticIp, Endpoint, NetworkInterface, WhichInterface};

use crate::world::{EndpointView, InterfaceView};

/// `members` are the group's instances, as far as EC2 knows them, and `vpc` where they are: the same private address can exist in
/// several VPCs. Without a VPC no member is left that could have the address.
pub(super) async fn look(
    ec2: &dyn Ec2Api,
    which: &Endpoint,
    members: &[Instance],
    vpc: Option<&str>,
) -> Result<EndpointView, AwsError> {
    match which {
        Endpoint::ElasticIp(which) => elastic_ip(ec2, which).await,
        Endpoint::NetworkInterface(which) => network_interface(ec2, which, members).await,
        Endpoint::PrivateIp(address) => {
            let on = match vpc {
                Some(vpc) => ec2.interface_with(vpc, *address).await?,
                None => None,
            };
            Ok(EndpointView::PrivateIp { address: *address, on })
        }
    }
}

async fn elastic_ip(ec2: &dyn Ec2Api, which: &ElasticIp) -> Result<EndpointView, AwsError> {
    let mut found = ec2.addresses(which).await?;
    Ok(match (found.len(), which) {
        (1, _) => EndpointView::ElasticIp(found.remove(0)),
        (0, ElasticIp::Tag { key, value, allocate: true }) => {
            EndpointView::MayAllocate { key: key.clone(), value: value.clone() }
        }
        (0, ElasticIp::Tag { key, value, .. }) => EndpointView::Wrong(format!(
            "there is no Elastic IP with tag {key}={value}; allocate one and tag it, or set endpoint.allocate: true"
        )),
        (0, ElasticIp::Allocation(id)) => {
            EndpointView::Wrong(format!("there is no Elastic IP {id}; correct endpoint.allocation_id"))
        }
        (n, _) => EndpointView::Wrong(format!("{n} Elastic IPs have the endpoint's tag; leave it on one")),
    })
}

async fn network_interface(
    ec2: &dyn Ec2Api,
    which: &NetworkInterface,
    members: &[Instance],
) -> Result<EndpointView, AwsError> {
    let mut found = ec2.interfaces(&which.which).await?;
    let view = match (found.len(), &which.which) {
        (1, _) => found.remove(0),
        (0, WhichInterface::Id(id)) => {
            let why =
                format!("there is no network interface {id}; create one and correct endpoint.network_interface_id");
            return Ok(EndpointView::Wrong(why));
        }
        (0, WhichInterface::Tag { key, value }) => {
            let why = format!("there is no network interface with tag {key}={value}; create one and tag it");
            return Ok(EndpointView::Wrong(why));
        }
        (n, _) => {
            let why = format!("{n} network interfaces have the endpoint's tag; leave it on one");
            return Ok(EndpointView::Wrong(why));
        }
    };
    let holder_alive = match view.attachment.as_ref().and_then(|a| a.instance.clone()) {
        Some(holder) => match members.iter().find(|i| i.id == holder) {
            Some(member) => member.alive,
            None => ec2.instances(&[holder]).await?.iter().any(|i| i.alive),
        },
        None => false,
    };
    let device_index = which.device_index;
    Ok(EndpointView::NetworkInterface(InterfaceView {
        interface: view,
        device_index,
        holder_alive,
        detaching_since: None,
    }))
}
