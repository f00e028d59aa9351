//! Random calls keep the invariants, and the same calls get the same answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ec2_model::Reply;
use ec2_model::config::{AddressChoice, Config, Consistency, Latency, Throttling};
use ec2_model::id::{AttachmentId, EniId, InstanceId};
use ec2_model::request::{
    AssignIpv6Addresses, AssignPrivateIpAddresses, CreateNetworkInterface, DeleteNetworkInterface,
    DescribeNetworkInterfaces, DetachNetworkInterface, Request, RunInstances, TerminateInstances,
    UnassignPrivateIpAddresses, WantedIpv4, WantedIpv6,
};
use ec2_model::response::{NetworkInterface, Response};
use ipnet::Ipv4Net;
use proptest::prelude::*;

use crate::region::{Region, attach, n_addresses, n_prefixes};

const TYPES: [&str; 4] = ["m5.large", "t3.medium", "t2.micro", "p4d.24xlarge"];

/// One call of the client. Numbers select among the existing resources.
#[derive(Debug, Clone)]
enum Call {
    Create { subnet: bool, addresses: i32, prefixes: i32 },
    Attach { eni: usize, instance: usize, device: i32 },
    Detach { eni: usize, force: bool },
    Delete { eni: usize },
    Assign { eni: usize, wanted: WantedIpv4, may_move: bool },
    AssignIpv6 { eni: usize, n_addresses: i32, n_prefixes: i32 },
    Unassign { eni: usize, pick: usize },
    Run { instance_type: &'static str, n: i32 },
    Terminate { instance: usize },
    Wait { ms: u64 },
}

fn wanted() -> impl Strategy<Value = WantedIpv4> {
    prop_oneof![
        (0..12).prop_map(n_addresses),
        (0..6).prop_map(n_prefixes),
        prop::collection::vec(any::<u8>(), 1..4).prop_map(|hosts| WantedIpv4 {
            addresses: hosts.into_iter().map(|host| Ipv4Addr::new(10, 0, 2, host)).collect(),
            ..WantedIpv4::default()
        }),
        any::<u8>().prop_map(|host| WantedIpv4 {
            prefixes: vec![Ipv4Net::new(Ipv4Addr::new(10, 0, 2, host & 0xf8), 28).unwrap()],
            ..WantedIpv4::default()
        }),
    ]
}

fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        4 => (any::<bool>(), -1..12, -1..3)
            .prop_map(|(subnet, addresses, prefixes)| Call::Create { subnet, addresses, prefixes }),
        5 => (any::<usize>(), any::<usize>(), 0..4)
            .prop_map(|(eni, instance, device)| Call::Attach { eni, instance, device }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(eni, force)| Call::Detach { eni, force }),
        2 => any::<usize>().prop_map(|eni| Call::Delete { eni }),
        6 => (any::<usize>(), wanted(), any::<bool>())
            .prop_map(|(eni, wanted, may_move)| Call::Assign { eni, wanted, may_move }),
        2 => (any::<usize>(), 0..4, 0..2).prop_map(|(eni, n_addresses, n_prefixes)| {
            Call::AssignIpv6 { eni, n_addresses, n_prefixes }
        }),
        4 => (any::<usize>(), any::<usize>()).prop_map(|(eni, pick)| Call::Unassign { eni, pick }),
        1 => (prop::sample::select(&TYPES), 1..3)
            .prop_map(|(instance_type, n)| Call::Run { instance_type, n }),
        1 => any::<usize>().prop_map(|instance| Call::Terminate { instance }),
        3 => (0..4_000u64).prop_map(|ms| Call::Wait { ms }),
    ]
}

/// A client that makes random calls on the resources it knows.
#[derive(Debug)]
struct Client {
    region: Region,
    instances: Vec<InstanceId>,
    replies: Vec<Reply>,
}

impl Client {
    fn new(config: Config) -> Self {
        let mut region = Region::with(config);
        let instances = vec![region.add_instance("m5.large"), region.add_instance("t2.micro")];
        Self { region, instances, replies: Vec::new() }
    }

    /// One of the ENIs that a describe shows. `None` if the describe is throttled.
    fn eni(&mut self, pick: usize) -> Option<NetworkInterface> {
        let Ok(Response::NetworkInterfaces(page)) =
            self.region.call(DescribeNetworkInterfaces::default())
        else {
            return None;
        };
        let n = page.items.len();
        page.items.into_iter().nth(pick.checked_rem(n)?)
    }

    fn request(&mut self, call: &Call) -> Option<Request> {
        let positive = |n: i32| (n >= 0).then_some(n);
        let id = |client: &mut Self, pick: usize| client.eni(pick).map(|eni| eni.id);
        let request = match call.clone() {
            Call::Create { subnet, addresses, prefixes } => CreateNetworkInterface {
                secondary_private_ip_address_count: positive(addresses),
                ipv4_prefix_count: positive(prefixes),
                ..CreateNetworkInterface::in_subnet(match subnet {
                    true => self.region.subnet.clone(),
                    false => self.region.other_zone.clone(),
                })
            }
            .into(),
            Call::Attach { eni, instance, device } => {
                let instance = self.instances[instance % self.instances.len()].clone();
                attach(&id(self, eni)?, &instance, device).into()
            }
            Call::Detach { eni, force } => {
                let attachment_id = self.eni(eni)?.attachment.map(|it| it.id);
                let attachment_id = attachment_id.unwrap_or_else(|| AttachmentId::from_number(1));
                DetachNetworkInterface { attachment_id, force, dry_run: false }.into()
            }
            Call::Delete { eni } => {
                DeleteNetworkInterface { network_interface_id: id(self, eni)?, dry_run: false }
                    .into()
            }
            Call::Assign { eni, wanted, may_move } => AssignPrivateIpAddresses {
                network_interface_id: id(self, eni)?,
                wanted,
                allow_reassignment: may_move,
            }
            .into(),
            Call::AssignIpv6 { eni, n_addresses, n_prefixes } => AssignIpv6Addresses {
                network_interface_id: id(self, eni)?,
                wanted: WantedIpv6 {
                    address_count: (n_prefixes == 0).then_some(n_addresses),
                    prefix_count: (n_prefixes > 0).then_some(n_prefixes),
                    ..WantedIpv6::default()
                },
            }
            .into(),
            Call::Unassign { eni, pick } => unassign(&self.eni(eni)?, pick).into(),
            Call::Run { instance_type, n } => RunInstances {
                instance_type: instance_type.to_owned(),
                min_count: 1,
                max_count: n,
                subnet_id: Some(self.region.subnet.clone()),
                ..RunInstances::default()
            }
            .into(),
            Call::Terminate { instance } => {
                let instance = self.instances[instance % self.instances.len()].clone();
                TerminateInstances { instance_ids: vec![instance], dry_run: false }.into()
            }
            Call::Wait { ms } => {
                self.region.wait(ms);
                return None;
            }
        };
        Some(request)
    }

    fn make(&mut self, call: &Call) {
        let Some(request) = self.request(call) else { return };
        let reply = self.region.reply(request);
        if let Ok(Response::Started(reservation)) = &reply.result {
            self.instances.extend(reservation.instances.iter().map(|it| it.id.clone()));
        }
        self.replies.push(reply);
    }

    /// Checks the invariants that can be seen from outside.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let enis = self.region.enis();
        self.check_addresses(&enis)?;
        check_slots(&enis)?;
        let attached: BTreeSet<EniId> = self
            .region
            .model
            .fabric(self.region.now)
            .instances
            .into_iter()
            .flat_map(|instance| instance.enis)
            .map(|eni| eni.id)
            .collect();
        for eni in &enis {
            let up = eni.attachment.as_ref().is_some_and(|it| it.status.as_str() == "attached");
            prop_assert!(up || !attached.contains(&eni.id), "{} has a device", eni.id);
        }
        Ok(())
    }

    /// Checks that no address has two holders or is outside its subnet, and that the subnets'
    /// counts are right.
    fn check_addresses(&mut self, enis: &[NetworkInterface]) -> Result<(), TestCaseError> {
        for (subnet, net) in [
            (self.region.subnet.clone(), "10.0.2.0/24"),
            (self.region.other_zone.clone(), "10.0.3.0/24"),
        ] {
            let net: Ipv4Net = net.parse().unwrap();
            let mut held = BTreeSet::new();
            for eni in enis.iter().filter(|eni| eni.subnet_id == subnet) {
                let singles = eni.private_ip_addresses.iter().map(|it| Ipv4Net::from(it.address));
                for block in singles.chain(eni.ipv4_prefixes.iter().copied()) {
                    prop_assert!(net.contains(&block) && block == block.trunc(), "{block}");
                    for addr in u32::from(block.network())..=u32::from(block.broadcast()) {
                        prop_assert!(held.insert(addr), "{block} is held twice");
                    }
                }
            }
            let first = u32::from(net.network());
            let reserved = [0, 1, 2, 3, 255].map(|offset| first + offset);
            prop_assert!(reserved.iter().all(|addr| !held.contains(addr)));
            let n_free = usize::try_from(self.region.n_free(&subnet)).unwrap();
            prop_assert_eq!(n_free, 251 - held.len());
        }
        Ok(())
    }
}

/// Up to two of the ENI's blocks, and sometimes a block that it does not have.
fn unassign(eni: &NetworkInterface, pick: usize) -> UnassignPrivateIpAddresses {
    let addresses: Vec<Ipv4Addr> =
        eni.private_ip_addresses.iter().skip(pick % 3).take(2).map(|it| it.address).collect();
    let prefixes = eni.ipv4_prefixes.iter().skip(pick % 2).take(pick % 3).copied().collect();
    UnassignPrivateIpAddresses { network_interface_id: eni.id.clone(), addresses, prefixes }
}

/// Checks that each slot has one ENI at most.
fn check_slots(enis: &[NetworkInterface]) -> Result<(), TestCaseError> {
    let mut slots: BTreeMap<&InstanceId, BTreeSet<(u16, u16)>> = BTreeMap::new();
    for eni in enis {
        if let Some(attachment) = &eni.attachment {
            let slot = (attachment.network_card_index, attachment.device_index);
            let free = slots.entry(&attachment.instance_id).or_default().insert(slot);
            prop_assert!(free, "{} {slot:?}", attachment.instance_id);
        }
    }
    Ok(())
}

/// Checks the limits of the instance type.
fn check_limits(client: &mut Client) -> Result<(), TestCaseError> {
    let request = ec2_model::request::DescribeInstances::default();
    let Ok(Response::Reservations(page)) = client.region.call(request) else {
        return Err(TestCaseError::fail("instances are listed"));
    };
    for instance in page.items.iter().flat_map(|it| &it.instances) {
        let row = instance.instance_type;
        prop_assert!(instance.network_interfaces.len() <= usize::from(row.max_enis()));
        for eni in &instance.network_interfaces {
            let n = eni.private_ip_addresses.len() + eni.ipv4_prefixes.len();
            prop_assert!(n <= usize::from(row.ipv4_per_eni), "{} on {}", eni.id, row.name);
            let n_ipv6 = eni.ipv6_addresses.len() + eni.ipv6_prefixes.len();
            prop_assert!(n_ipv6 <= usize::from(row.ipv6_per_eni.unwrap_or(0)));
            prop_assert!(row.supports_prefixes() || eni.ipv4_prefixes.is_empty());
        }
    }
    Ok(())
}

fn config(seed: u64, choice: AddressChoice) -> Config {
    let latency = Latency { describe: Default::default(), ..Latency::realistic() };
    Config { seed, address_choice: choice, latency, ..Config::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn invariants(
        calls in prop::collection::vec(any_call(), 1..60),
        seed in any::<u64>(),
        choice in prop::sample::select(&[
            AddressChoice::Random, AddressChoice::LowestFirst, AddressChoice::Spread,
        ]),
    ) {
        let mut client = Client::new(config(seed, choice));
        for call in &calls {
            client.make(call);
            client.check()?;
            check_limits(&mut client)?;
        }
    }

    /// All switches that use randomness are on.
    #[test]
    fn same_seed_gives_same_answers(
        calls in prop::collection::vec(any_call(), 1..60),
        seed in any::<u64>(),
    ) {
        let config = Config {
            consistency: Consistency::realistic(),
            throttling: Throttling::Documented,
            latency: Latency::realistic(),
            ..config(seed, AddressChoice::Random)
        };
        let run = |config: &Config| {
            let mut client = Client::new(config.clone());
            calls.iter().for_each(|call| client.make(call));
            let last = client.region.reply(DescribeNetworkInterfaces::default());
            client.replies.push(last);
            (client.replies, client.region.model.wake_at())
        };
        prop_assert_eq!(run(&config), run(&config));
    }
}

#[test]
fn other_seed_gives_other_ids() {
    let id = |seed| {
        let mut region = Region::with(config(seed, AddressChoice::Random));
        region.create_eni()
    };
    assert_eq!(id(1), id(1));
    assert_ne!(id(1), id(2));
}
