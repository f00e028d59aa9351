//! Two days of pods and restarts, in virtual time, by a metadata service that does not tell what is: no pod
//! loses its address, and none gets one that EC2 does not have here.

mod service;
mod world;

use std::net::{IpAddr, Ipv4Addr};

use ec2_model::fault::Disturbance;
use ipam::id::AttachmentKey;

use self::service::{Chance, Shown};
use self::world::{MINUTE, MOST_PODS, Tally, World};

const HOURS: u64 = 48;

/// How the service is wrong, given what it showed first, what is true, and chance.
type Lie = fn(&Shown, Shown, &mut Chance) -> Shown;

impl World {
    /// Pods come and go each minute; the daemon starts anew each hour, every other time since it died.
    async fn live(mut self, lie: Lie) -> Tally {
        self.show(self.truth());
        self.start().await;
        self.pass(MINUTE).await;
        let first = self.truth();
        for hour in 0..HOURS {
            for minute in 0..60 {
                let wanted = self.chance.below(MOST_PODS);
                for _ in 0..3 {
                    match (self.pods.len() as u64).cmp(&wanted) {
                        std::cmp::Ordering::Less => self.come().await,
                        std::cmp::Ordering::Equal => {}
                        std::cmp::Ordering::Greater => self.go().await,
                    }
                }
                if minute == 59 && hour % 2 == 1 {
                    let lives_for = usize::try_from(self.chance.below(4)).unwrap();
                    let key = AttachmentKey {
                        network: "aws-cni".to_owned(),
                        container: format!("last{hour}"),
                        ifname: "eth0".to_owned(),
                    };
                    self.add(key, lives_for).await;
                    self.daemon = None;
                }
                self.pass(MINUTE).await;
                if minute % 5 == 0 {
                    self.hint().await;
                }
            }
            let truth = self.truth();
            let lie = lie(&first, truth, &mut self.chance);
            self.show(lie);
            self.start().await;
        }
        self.pass(MINUTE).await;
        println!("{:?}", self.tally);
        self.tally
    }
}

async fn is_harmless(lie: Lie) -> Tally {
    let world = World::new(&[("WARM_IP_TARGET", "2"), ("CLUSTER_NAME", "ours")]).await;
    let tally = world.live(lie).await;
    tally.assert_no_harm();
    assert!(tally.starts > HOURS && tally.granted > 1_000, "{tally:?}");
    // Between two starts 0, 10 and 30 minutes after the first.
    assert!((1..=3 * tally.starts).contains(&tally.by_hints), "{tally:?}");
    tally
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_metadata_harm_no_pod_for_two_days() {
    is_harmless(|first, _, _| first.clone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_are_rolled_back_harm_no_pod_for_two_days() {
    let back = |first: &Shown, truth, chance: &mut Chance| match chance.below(2) {
        0 => first.clone(),
        _ => truth,
    };
    is_harmless(back).await;
}

/// Some documents end too soon, some are missing, at every other start or so one that is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn truncated_metadata_harm_no_pod_for_two_days() {
    let cut = |_: &Shown, mut truth: Shown, chance: &mut Chance| {
        truth.retain(|_, _| chance.below(20) > 0);
        for text in truth.values_mut() {
            if chance.below(5) == 0 {
                let end = chance.below(text.len() as u64 + 1);
                text.truncate(usize::try_from(end).unwrap());
            }
        }
        truth
    };
    let tally = is_harmless(cut).await;
    assert!((HOURS / 4..HOURS).contains(&tally.by_kept_facts), "{tally:?}");
}

/// Eight digits are a whole id too.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_by_the_beginning_of_the_vpcs_id_serves_all_the_same() {
    let mut world = World::new(&[("WARM_IP_TARGET", "2")]).await;
    let mut shown = world.truth();
    let is_vpc = |(path, _): &(&String, &mut String)| path.ends_with("/vpc-id");
    shown.iter_mut().find(is_vpc).unwrap().1.truncate("vpc-01234567".len());
    world.show(shown);
    world.start().await;
    world.fill(24).await;
    assert!(world.enis().len() > 1);
    let told = world.record.enis().values().map(|known| known.subnet_cidr.to_string());
    assert_eq!(told.collect::<Vec<_>>(), ["10.0.0.0/22"; 3]);
    world.tally.assert_no_harm();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_pods_on_thirteen_prefixes_of_which_metadata_show_twelve_keep_their_addresses()
{
    let variables = [
        ("ENABLE_PREFIX_DELEGATION", "true"),
        ("WARM_IP_TARGET", "8"),
        ("TIDEPOOL_MAX_PODS", "250"),
    ];
    let mut world = World::with_pods(&variables, 200).await;
    let n_prefixes = |shown: &Shown| -> usize {
        let lists = shown.iter().filter(|(path, _)| path.ends_with("/ipv4-prefix"));
        lists.map(|(_, text)| text.lines().count()).sum()
    };
    let mut shown = world.truth();
    assert_eq!(n_prefixes(&shown), 13);
    let list = shown.iter_mut().find(|(path, _)| path.ends_with("/ipv4-prefix")).unwrap().1;
    *list = list.lines().skip(1).collect::<Vec<_>>().join("\n");
    assert_eq!(n_prefixes(&shown), 12);
    world.show(shown);
    let before = world.record.clone();
    let n_calls = world.server.simulator().calls().len();
    world.die_and_start_twice().await;
    assert_eq!(world.record.assignments(), before.assignments());
    assert_eq!(world.record.enis(), before.enis());
    // Neither is one given back nor another asked for in its stead.
    let calls = world.server.simulator().calls();
    let changes = calls[n_calls..].iter().find(|call| !call.record.action.starts_with("Describe"));
    assert_eq!(changes, None);
    world.tally.assert_no_harm();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_ec2_has_taken_back_is_not_given_out_while_metadata_list_it() {
    let mut world = World::with_pods(&[("WARM_IP_TARGET", "5")], 4).await;
    let shown = world.truth();
    world.show(shown.clone());
    world.daemon = None;
    let is_free = |ip: &Ipv4Addr| world.pods.values().all(|pods| *pods != *ip);
    let enis = world.enis();
    let mut free =
        enis.iter().flat_map(|eni| eni.secondaries.iter().map(|ip| (eni.id.clone(), *ip)));
    let (eni, taken) = free.find(|(_, ip)| is_free(ip)).unwrap();
    let disturbance =
        Disturbance::Unassign { eni, addresses: vec![taken.into()], prefixes: vec![] };
    world.server.simulator().with(|model, now| model.disturb(disturbance, now)).unwrap();
    assert!(shown.values().any(|text| text.contains(&taken.to_string())));
    world.start().await;
    world.fill(24).await;
    assert!(world.pods.values().all(|ip| *ip != IpAddr::from(taken)));
    world.tally.assert_no_harm();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eni_that_metadata_list_for_ever_is_neither_used_nor_called_for() {
    let mut world = World::with_pods(&[("WARM_IP_TARGET", "1")], 20).await;
    world.show(world.truth());
    let before = world.enis();
    while !world.pods.is_empty() {
        world.go().await;
    }
    world.pass(60 * MINUTE).await;
    let after = world.enis();
    let gone = before.iter().filter(|eni| after.iter().all(|other| other.id != eni.id));
    let gone: Vec<String> = gone.map(|eni| eni.id.to_string()).collect();
    assert!(!gone.is_empty(), "{after:?}");
    let n_calls = world.server.simulator().calls().len();
    world.die_and_start_twice().await;
    world.fill(20).await;
    let calls = world.server.simulator().calls();
    assert!(calls.len() > n_calls);
    let names_it = |text: &String| gone.iter().any(|eni| text.contains(eni));
    let on_it = calls[n_calls..].iter().find(|call| call.record.parameters.values().any(names_it));
    assert_eq!(on_it, None);
    let held = world.record.assignments().values();
    assert!(held.map(|held| held.eni.to_string()).all(|eni| !gone.contains(&eni)));
    world.tally.assert_no_harm();
}
