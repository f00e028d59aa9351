//! Two days of pods and restarts in virtual time, with a metadata service whose answers are wrong. No pod
//! loses its address, and no pod gets an address that EC2 does not have on this instance.

mod service;
mod test_node;

use std::net::{IpAddr, Ipv4Addr};

use ec2_model::fault::Disturbance;
use ipam::id::AttachmentKey;

use self::service::{Chance, Shown};
use self::test_node::{Counts, MAX_PODS, MINUTE, TestNode};

const HOURS: u64 = 48;

/// What the service shows, made of what it showed first, the truth, and chance.
type Distort = fn(&Shown, Shown, &mut Chance) -> Shown;

impl TestNode {
    /// Pods come and go each minute. The daemon restarts each hour, every second time after a crash.
    async fn run_two_days(mut self, distort: Distort) -> Counts {
        self.show(self.truth());
        self.start().await;
        self.advance(MINUTE).await;
        let first = self.truth();
        for hour in 0..HOURS {
            for minute in 0..60 {
                let wanted = self.chance.below(MAX_PODS);
                for _ in 0..3 {
                    match (self.pods.len() as u64).cmp(&wanted) {
                        std::cmp::Ordering::Less => self.add_pod().await,
                        std::cmp::Ordering::Equal => {}
                        std::cmp::Ordering::Greater => self.delete_pod().await,
                    }
                }
                if minute == 59 && hour % 2 == 1 {
                    let n_effects = usize::try_from(self.chance.below(4)).unwrap();
                    let key = AttachmentKey {
                        network: "aws-cni".into(),
                        container: format!("last{hour}"),
                        ifname: "eth0".to_owned(),
                    };
                    self.add(key, n_effects).await;
                    self.daemon = None;
                }
                self.advance(MINUTE).await;
                if minute % 5 == 0 {
                    self.hint().await;
                }
            }
            let truth = self.truth();
            let shown = distort(&first, truth, &mut self.chance);
            self.show(shown);
            self.start().await;
        }
        self.advance(MINUTE).await;
        println!("{:?}", self.counts);
        self.counts
    }
}

async fn check_harmless(distort: Distort) -> Counts {
    let node = TestNode::new(&[("WARM_IP_TARGET", "2"), ("CLUSTER_NAME", "ours")]).await;
    let counts = node.run_two_days(distort).await;
    counts.assert_no_harm();
    assert!(counts.starts > HOURS && counts.granted > 1_000, "{counts:?}");
    // Between two starts, hints lead to polls 0, 10 and 30 minutes after the first.
    assert!((1..=3 * counts.starts).contains(&counts.by_hints), "{counts:?}");
    counts
}

/// EC2 lists the /80 for pods. The metadata service lists the node's own IPv6 address and the IPv4 addresses too.
#[tokio::test(flavor = "multi_thread")]
async fn right_metadata_of_an_ipv6_node_differs_in_nothing() {
    let variables =
        [("ENABLE_IPv6", "true"), ("ENABLE_IPv4", "false"), ("ENABLE_PREFIX_DELEGATION", "true")];
    let mut node = TestNode::with_pods(&variables, 3).await;
    let shown = node.truth();
    assert!(shown.iter().any(|(path, text)| path.ends_with("/ipv6s") && text.ends_with("::10")));
    node.show(shown);
    let hinted = node.hinted_blocks().await;
    assert!(
        matches!(&hinted[..], [own, prefix] if own.ends_with("/32") && prefix.ends_with("/80"))
    );
    for _ in 0..30 {
        node.hint().await;
        node.advance(MINUTE).await;
    }
    assert_eq!((node.refuted_hints(), node.counts.by_hints), (0, 0));
    node.counts.assert_no_harm();
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_metadata_harms_no_pod_for_two_days() {
    check_harmless(|first, _, _| first.clone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rolled_back_metadata_harms_no_pod_for_two_days() {
    let rolled_back = |first: &Shown, truth, chance: &mut Chance| match chance.below(2) {
        0 => first.clone(),
        _ => truth,
    };
    check_harmless(rolled_back).await;
}

/// Some documents are truncated, some are missing. About every second start asks for one of them.
#[tokio::test(flavor = "multi_thread")]
async fn truncated_metadata_harms_no_pod_for_two_days() {
    let truncate = |_: &Shown, mut truth: Shown, chance: &mut Chance| {
        truth.retain(|_, _| chance.below(20) > 0);
        for text in truth.values_mut() {
            if chance.below(5) == 0 {
                let end = chance.below(text.len() as u64 + 1);
                text.truncate(usize::try_from(end).unwrap());
            }
        }
        truth
    };
    let counts = check_harmless(truncate).await;
    assert!((HOURS / 4..HOURS).contains(&counts.by_kept_facts), "{counts:?}");
}

/// An id may have eight digits, so the beginning of a longer id passes for a whole one.
#[tokio::test(flavor = "multi_thread")]
async fn first_start_with_a_truncated_vpc_id_serves_pods() {
    let mut node = TestNode::new(&[("WARM_IP_TARGET", "2")]).await;
    let mut shown = node.truth();
    let is_vpc = |(path, _): &(&String, &mut String)| path.ends_with("/vpc-id");
    shown.iter_mut().find(is_vpc).unwrap().1.truncate("vpc-01234567".len());
    node.show(shown);
    node.start().await;
    node.fill(24).await;
    assert!(node.enis().len() > 1);
    let ranges = node.record.enis().values().map(|known| known.subnet_cidr.to_string());
    assert_eq!(ranges.collect::<Vec<_>>(), ["10.0.0.0/22"; 3]);
    node.counts.assert_no_harm();
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_keep_addresses_of_a_prefix_missing_in_metadata() {
    let variables = [
        ("ENABLE_PREFIX_DELEGATION", "true"),
        ("WARM_IP_TARGET", "8"),
        ("TIDEPOOL_MAX_PODS", "250"),
    ];
    let mut node = TestNode::with_pods(&variables, 200).await;
    let n_prefixes = |shown: &Shown| -> usize {
        let lists = shown.iter().filter(|(path, _)| path.ends_with("/ipv4-prefix"));
        lists.map(|(_, text)| text.lines().count()).sum()
    };
    let mut shown = node.truth();
    assert_eq!(n_prefixes(&shown), 13);
    let list = shown.iter_mut().find(|(path, _)| path.ends_with("/ipv4-prefix")).unwrap().1;
    *list = list.lines().skip(1).collect::<Vec<_>>().join("\n");
    assert_eq!(n_prefixes(&shown), 12);
    node.show(shown);
    let before = node.record.clone();
    let n_calls = node.server.simulator().calls().len();
    node.die_and_start_twice().await;
    assert_eq!(node.record.assignments(), before.assignments());
    assert_eq!(node.record.enis(), before.enis());
    // The daemon neither gives a prefix back nor asks for another one.
    let calls = node.server.simulator().calls();
    let changes = calls[n_calls..].iter().find(|call| !call.record.action.starts_with("Describe"));
    assert_eq!(changes, None);
    node.counts.assert_no_harm();
}

#[tokio::test(flavor = "multi_thread")]
async fn address_taken_by_ec2_but_in_metadata_is_not_granted() {
    let mut node = TestNode::with_pods(&[("WARM_IP_TARGET", "5")], 4).await;
    let shown = node.truth();
    node.show(shown.clone());
    node.daemon = None;
    let is_free = |ip: &Ipv4Addr| node.pods.values().all(|pods| *pods != *ip);
    let enis = node.enis();
    let mut free =
        enis.iter().flat_map(|eni| eni.secondaries.iter().map(|ip| (eni.id.clone(), *ip)));
    let (eni, taken) = free.find(|(_, ip)| is_free(ip)).unwrap();
    let disturbance =
        Disturbance::Unassign { eni, addresses: vec![taken.into()], prefixes: vec![] };
    node.server.simulator().with(|model, now| model.disturb(disturbance, now)).unwrap();
    assert!(shown.values().any(|text| text.contains(&taken.to_string())));
    node.start().await;
    node.fill(24).await;
    assert!(node.pods.values().all(|ip| *ip != IpAddr::from(taken)));
    node.counts.assert_no_harm();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_eni_still_in_metadata_is_neither_used_nor_called() {
    let mut node = TestNode::with_pods(&[("WARM_IP_TARGET", "1")], 20).await;
    node.show(node.truth());
    let before = node.enis();
    while !node.pods.is_empty() {
        node.delete_pod().await;
    }
    node.advance(60 * MINUTE).await;
    let after = node.enis();
    let gone = before.iter().filter(|eni| after.iter().all(|other| other.id != eni.id));
    let gone: Vec<String> = gone.map(|eni| eni.id.to_string()).collect();
    assert!(!gone.is_empty(), "{after:?}");
    let n_calls = node.server.simulator().calls().len();
    node.die_and_start_twice().await;
    node.fill(20).await;
    let calls = node.server.simulator().calls();
    assert!(calls.len() > n_calls);
    let names_one = |text: &String| gone.iter().any(|eni| text.contains(eni));
    let call = calls[n_calls..].iter().find(|call| call.record.parameters.values().any(names_one));
    assert_eq!(call, None);
    let held = node.record.assignments().values();
    assert!(
        held.map(|held| held.addresses.first().via.eni().to_string())
            .all(|eni| !gone.contains(&eni))
    );
    node.counts.assert_no_harm();
}
