//! The EC2 client: one method that makes a call which is given as data.
//!
//! It knows how each call is put on the wire. It must not know why a call is made.

pub(crate) mod reply;
mod tracking;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::Credentials;
use aws_sdk_ec2::types::{
    Filter, InstanceType, InstanceTypeInfo, NetworkInterface, NetworkInterfaceAttachmentChanges,
    ResourceType, Tag, TagSpecification,
};
use aws_smithy_async::future::pagination_stream::PaginationStream;
use ipam::block::{Block, BlockCount, BlockKind, Family};
use ipam::call::{
    CLUSTER_TAG, CallError, CallErrorKind, CallOutput, Ec2Call, EniFacts, INSTANCE_TAG, SubnetFacts,
};
use ipam::connection_tracking::ConnectionTracking;
use ipam::id::{EniAttachmentId, EniId, InstanceId, SecurityGroupId, SubnetId, VpcId};
use ipnet::IpNet;
use mac::MacAddr;
use service_url::ServiceUrl;

use crate::connect::{Caller, Identity, connect};
use crate::failure::Failure;
use crate::http::{ConnectError, Proxies};
use crate::trust::Roots;

/// EC2's largest page. EC2 never refuses a paginated call for its size, and takes it from the larger of the
/// two request buckets.
const PAGE_SIZE: i32 = 1000;
/// The most ENIs or subnets in all pages of one answer. A VPC has at most some thousand of either.
const MOST_ITEMS: usize = 20_000;

/// Where EC2 is and who calls.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// For example `eu-central-1`.
    pub region: String,
    /// Where EC2 listens if not at the region's own address.
    pub endpoint: Option<ServiceUrl>,
    /// By which proxy requests to EC2 and STS go.
    pub proxies: Proxies,
    /// By which certificates EC2, STS and proxies are trusted.
    pub roots: Roots,
    /// This node.
    pub instance: InstanceId,
    /// The node's VPC. The VPC of the primary ENI replaces it as soon as EC2 has described that ENI.
    pub vpc: VpcId,
    /// The hardware address of the node's primary ENI.
    pub primary_mac: MacAddr,
    /// The node's zone: `eu-central-1a`.
    pub availability_zone: String,
    /// How long one attempt of a call may take, until the last byte of the answer.
    pub http_timeout: Duration,
    /// Fixed credentials. Without them the SDK's default chain searches environment, profile, web identity,
    /// pod identity and instance role.
    pub credentials: Option<Credentials>,
}

/// A client of EC2 for one instance. Clones share connections and credentials.
#[derive(Clone)]
pub struct Ec2 {
    /// It retries nothing. The caller knows what a retry would do, and spaces all calls of the daemon as EC2's
    /// buckets allow.
    client: Client,
    instance: InstanceId,
    configured_vpc: VpcId,
    primary_mac: MacAddr,
    /// The VPC of the primary ENI in EC2's answer.
    vpc: Arc<OnceLock<VpcId>>,
    availability_zone: String,
}

impl Ec2 {
    /// Makes a client. It sends no request, so the first call shows whether EC2 can be reached and takes the
    /// credentials.
    ///
    /// # Errors
    /// If the certificates or a proxy cannot be used.
    pub async fn connect(options: ConnectOptions) -> Result<Self, ConnectError> {
        let caller = Caller {
            identity: options.credentials.map_or(Identity::Default, Identity::Fixed),
            region: Some(options.region),
            endpoint: options.endpoint,
            proxies: options.proxies,
            roots: options.roots,
            http_timeout: options.http_timeout,
        };
        let (client, _region) = connect(&caller, RetryConfig::disabled()).await?;
        Ok(Self {
            client,
            instance: options.instance,
            configured_vpc: options.vpc,
            primary_mac: options.primary_mac,
            vpc: Arc::default(),
            availability_zone: options.availability_zone,
        })
    }

    /// Makes `call` once and waits for the answer. Each page of the answer may take as long as the time-out.
    ///
    /// # Errors
    /// EC2's errors and those of the connection, by kind. A missing or invalid field in the answer is
    /// [`CallErrorKind::OutcomeUnknown`]; the message names call and field.
    pub async fn execute(&self, call: &Ec2Call) -> Result<CallOutput, CallError> {
        self.make(call).await.map_err(|failure| failure.of(call.action().as_str()))
    }

    async fn make(&self, call: &Ec2Call) -> Result<CallOutput, Failure> {
        match call {
            Ec2Call::DescribeEnis => self.describe_enis().await.map(CallOutput::Enis),
            Ec2Call::DescribeUnattached { cluster } => {
                self.describe_unattached(cluster).await.map(CallOutput::Enis)
            }
            Ec2Call::DescribeSubnets => self.describe_subnets().await.map(CallOutput::Subnets),
            Ec2Call::CreateEni {
                subnet,
                security_groups,
                connection_tracking,
                blocks,
                description,
                tags,
                client_token,
            } => {
                let (tracking, blocks) = (*connection_tracking, *blocks);
                let new = NewEni { subnet, security_groups, tracking, blocks, description, tags };
                self.create_eni(new, client_token).await.map(CallOutput::Created)
            }
            Ec2Call::AttachEni { eni, device_index } => {
                self.attach_eni(eni, *device_index).await.map(CallOutput::Attached)
            }
            Ec2Call::SetDeleteOnTermination { eni, attachment } => {
                self.set_delete_on_termination(eni, attachment).await
            }
            Ec2Call::Assign { eni, blocks } => {
                self.assign(eni, *blocks).await.map(CallOutput::Assigned)
            }
            Ec2Call::Unassign { eni, blocks } => self.unassign(eni, blocks).await,
            Ec2Call::DetachEni { eni: _, attachment } => self.detach_eni(attachment).await,
            Ec2Call::DeleteEni { eni } => self.delete_eni(eni).await,
            Ec2Call::SetSecurityGroups { eni, security_groups } => {
                self.set_security_groups(eni, security_groups).await
            }
        }
    }

    /// The filter by tag finds our ENIs in every state. Two filters by state could both miss an ENI whose
    /// state changes between the two requests. The later answer about an ENI counts.
    async fn describe_enis(&self) -> Result<Vec<EniFacts>, Failure> {
        let instance = self.instance.as_str();
        let mut enis = BTreeMap::new();
        for name in [&format!("tag:{INSTANCE_TAG}"), "attachment.instance-id"] {
            for eni in self.network_interfaces([filter(name, instance)]).await? {
                if !reply::is_attached_elsewhere(&eni, &self.instance) {
                    let facts = reply::eni(&eni)?;
                    if facts.is_primary(self.primary_mac) {
                        let vpc = reply::vpc(&eni)?;
                        self.vpc.get_or_init(|| vpc);
                    }
                    enis.insert(facts.id.clone(), facts);
                }
            }
        }
        Ok(enis.into_values().collect())
    }

    async fn describe_unattached(&self, cluster: &str) -> Result<Vec<EniFacts>, Failure> {
        let filters = [
            filter(&format!("tag:{CLUSTER_TAG}"), cluster),
            filter("tag-key", INSTANCE_TAG),
            filter("status", "available"),
            filter("vpc-id", self.vpc().as_str()),
        ];
        let enis = self.network_interfaces(filters).await?;
        Ok(enis.iter().map(reply::eni).collect::<Result<_, _>>()?)
    }

    async fn network_interfaces(
        &self,
        filters: impl IntoIterator<Item = Filter>,
    ) -> Result<Vec<NetworkInterface>, Failure> {
        let filters = filters.into_iter().collect();
        let enis = self.client.describe_network_interfaces().set_filters(Some(filters));
        let pages = enis.into_paginator().page_size(PAGE_SIZE);
        all(pages.items().send()).await
    }

    fn vpc(&self) -> &VpcId {
        self.vpc.get().unwrap_or(&self.configured_vpc)
    }

    /// The answer always has the primary ENI's subnet. An empty answer shows that the VPC is not the node's.
    async fn describe_subnets(&self) -> Result<Vec<SubnetFacts>, Failure> {
        let subnets = self
            .client
            .describe_subnets()
            .filters(filter("vpc-id", self.vpc().as_str()))
            .filters(filter("availability-zone", &self.availability_zone));
        let pages = subnets.into_paginator().page_size(PAGE_SIZE);
        let subnets = all(pages.items().send()).await?;
        reply::need("subnetSet", subnets.first())?;
        let mut facts = subnets
            .iter()
            .filter_map(|subnet| reply::subnet(subnet).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        facts.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(facts)
    }

    async fn create_eni(&self, new: NewEni<'_>, token: &str) -> Result<EniFacts, Failure> {
        let NewEni { subnet, security_groups, tracking, blocks, description, tags } = new;
        let Counts { addresses, prefixes, ipv6_prefixes } = Counts::of(blocks);
        let answer = self
            .client
            .create_network_interface()
            .subnet_id(subnet.as_str())
            .set_groups(Some(texts(security_groups)))
            .set_connection_tracking_specification(tracking::specification(tracking))
            .set_secondary_private_ip_address_count(addresses)
            .set_ipv4_prefix_count(prefixes)
            .set_ipv6_prefix_count(ipv6_prefixes)
            .description(description)
            .set_tag_specifications(tag_specifications(tags))
            .client_token(token)
            .send()
            .await?;
        Ok(reply::created(&answer)?)
    }

    async fn attach_eni(&self, eni: &EniId, index: u16) -> Result<EniAttachmentId, Failure> {
        let answer = self
            .client
            .attach_network_interface()
            .network_interface_id(eni.as_str())
            .instance_id(self.instance.as_str())
            .device_index(i32::from(index))
            .send()
            .await?;
        Ok(reply::attached(&answer)?)
    }

    async fn set_delete_on_termination(
        &self,
        eni: &EniId,
        attachment: &EniAttachmentId,
    ) -> Result<CallOutput, Failure> {
        let change = NetworkInterfaceAttachmentChanges::builder()
            .attachment_id(attachment.as_str())
            .delete_on_termination(true);
        let request = self.client.modify_network_interface_attribute();
        request.network_interface_id(eni.as_str()).attachment(change.build()).send().await?;
        Ok(CallOutput::Done)
    }

    async fn assign(&self, eni: &EniId, blocks: BlockCount) -> Result<BTreeSet<Block>, Failure> {
        let Counts { addresses, prefixes, ipv6_prefixes } = Counts::of(blocks);
        if let Some(count) = ipv6_prefixes {
            return self.assign_ipv6(eni, count).await;
        }
        let answer = self
            .client
            .assign_private_ip_addresses()
            .network_interface_id(eni.as_str())
            .set_secondary_private_ip_address_count(addresses)
            .set_ipv4_prefix_count(prefixes)
            .send()
            .await?;
        Ok(reply::assigned(&answer)?)
    }

    /// A refusal is nearly always about a subnet without IPv6. EC2 has no code for that, so every refusal gets
    /// the advice.
    async fn assign_ipv6(&self, eni: &EniId, count: i32) -> Result<BTreeSet<Block>, Failure> {
        let request = self.client.assign_ipv6_addresses().network_interface_id(eni.as_str());
        let answer = request.ipv6_prefix_count(count).send().await.map_err(|error| {
            let advice = format!(
                "; IPv6 pods need a subnet with an IPv6 CIDR block: associate one with the subnet \
                 of {eni}"
            );
            Failure::from(error).advised(CallErrorKind::Rejected, &advice)
        })?;
        Ok(reply::assigned_ipv6(&answer)?)
    }

    async fn unassign(&self, eni: &EniId, blocks: &BTreeSet<Block>) -> Result<CallOutput, Failure> {
        if blocks.iter().all(|block| block.family() == Family::V6) {
            return self.unassign_ipv6(eni, blocks).await;
        }
        let mut request =
            self.client.unassign_private_ip_addresses().network_interface_id(eni.as_str());
        for block in blocks {
            request = match block.cidr() {
                IpNet::V4(net) if block.is_prefix() => request.ipv4_prefixes(net.to_string()),
                IpNet::V4(net) => request.private_ip_addresses(net.addr().to_string()),
                IpNet::V6(_) => return Err(mixed_families(*block)),
            };
        }
        request.send().await?;
        Ok(CallOutput::Done)
    }

    async fn unassign_ipv6(
        &self,
        eni: &EniId,
        blocks: &BTreeSet<Block>,
    ) -> Result<CallOutput, Failure> {
        let mut request = self.client.unassign_ipv6_addresses().network_interface_id(eni.as_str());
        for block in blocks {
            request = request.ipv6_prefixes(block.to_string());
        }
        request.send().await?;
        Ok(CallOutput::Done)
    }

    async fn detach_eni(&self, attachment: &EniAttachmentId) -> Result<CallOutput, Failure> {
        let request = self.client.detach_network_interface();
        request.attachment_id(attachment.as_str()).send().await?;
        Ok(CallOutput::Done)
    }

    async fn delete_eni(&self, eni: &EniId) -> Result<CallOutput, Failure> {
        let request = self.client.delete_network_interface();
        request.network_interface_id(eni.as_str()).send().await?;
        Ok(CallOutput::Done)
    }

    async fn set_security_groups(
        &self,
        eni: &EniId,
        groups: &BTreeSet<SecurityGroupId>,
    ) -> Result<CallOutput, Failure> {
        let request = self.client.modify_network_interface_attribute();
        let request = request.network_interface_id(eni.as_str()).set_groups(Some(texts(groups)));
        request.send().await?;
        Ok(CallOutput::Done)
    }

    /// EC2's description of the instance type `name`.
    pub(crate) async fn instance_type(&self, name: &str) -> Result<InstanceTypeInfo, Failure> {
        let request = self.client.describe_instance_types();
        let answer = request.instance_types(InstanceType::from(name)).send().await?;
        let types = answer.instance_types.unwrap_or_default();
        Ok(reply::need("instanceTypeSet", types.into_iter().next())?)
    }
}

fn texts(groups: &BTreeSet<SecurityGroupId>) -> Vec<String> {
    groups.iter().map(ToString::to_string).collect()
}

impl fmt::Debug for Ec2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ec2").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// The ENI to create.
struct NewEni<'a> {
    subnet: &'a SubnetId,
    security_groups: &'a BTreeSet<SecurityGroupId>,
    tracking: ConnectionTracking,
    blocks: BlockCount,
    description: &'a str,
    tags: &'a BTreeMap<String, String>,
}

/// All items of all pages. A part of them would be worse than an error: what is missing would count as gone.
async fn all<T, E>(mut items: PaginationStream<Result<T, E>>) -> Result<Vec<T>, Failure>
where
    Failure: From<E>,
{
    let mut all = Vec::new();
    while let Some(item) = items.try_next().await? {
        if all.len() == MOST_ITEMS {
            return Err(Failure::too_long(format!("more than {MOST_ITEMS} items in all pages")));
        }
        all.push(item);
    }
    Ok(all)
}

fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

/// The count of each kind in a request.
#[derive(Default)]
struct Counts {
    addresses: Option<i32>,
    prefixes: Option<i32>,
    ipv6_prefixes: Option<i32>,
}

impl Counts {
    /// EC2 refuses a count of zero, so a request leaves it out.
    fn of(BlockCount { kind, n }: BlockCount) -> Self {
        let count = (n > 0).then(|| i32::from(n));
        match kind {
            BlockKind::V4Address => Self { addresses: count, ..Self::default() },
            BlockKind::V4Prefix => Self { prefixes: count, ..Self::default() },
            BlockKind::V6Prefix => Self { ipv6_prefixes: count, ..Self::default() },
        }
    }
}

fn tag_specifications(tags: &BTreeMap<String, String>) -> Option<Vec<TagSpecification>> {
    let tags: Vec<_> =
        tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
    (!tags.is_empty()).then(|| {
        let specification =
            TagSpecification::builder().resource_type(ResourceType::NetworkInterface);
        vec![specification.set_tags(Some(tags)).build()]
    })
}

fn mixed_families(block: Block) -> Failure {
    Failure::Unanswered {
        kind: CallErrorKind::Rejected,
        code: "UnsupportedBlock",
        problem: format!("{block} is not of IPv4 as the others"),
    }
}
