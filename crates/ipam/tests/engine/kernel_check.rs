//! Reports of the kernel and the container runtime, checked against the record and EC2's answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipam::block::BlockKind;
use ipam::event::{Event, RefusalCode};
use ipam::id::AttachmentKey;
use ipam::kernel_report::AddressedLink;
use ipam::policy::WarmSettings;
use mac::MacAddr;

use crate::node::{Node, OnEni as _, Setup, key, limits, policy, warm_ip};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Adds the pods and makes their links.
fn run_pods(node: &mut Node, pods: impl IntoIterator<Item = usize>) -> BTreeSet<IpAddr> {
    let mut addresses = BTreeSet::new();
    for pod in pods {
        let address = node.run_pod(pod).address();
        node.links.insert(address, key(pod));
        addresses.insert(address);
    }
    addresses
}

/// The next kernel report, a minute later.
fn report_a_minute_later(node: &mut Node) {
    node.pass(secs(60));
    node.report_kernel();
    node.settle();
}

fn quarantined(node: &Node) -> BTreeSet<IpAddr> {
    node.view().quarantined.into_keys().collect()
}

fn check_addresses_are_kept(policy: Setup) {
    let mut node = Node::settled(limits("m5.large"), policy);
    let old = run_pods(&mut node, 0..10);
    let total = node.counts().total;
    node.links_are_marked = false;
    node.restart_without_record();
    // Blocks that EC2 describes twice may serve.
    node.pass(secs(10));
    assert_eq!(quarantined(&node), old);
    assert_eq!(node.counts().quarantined, 10);
    assert!(old.iter().all(|ip| node.view().blocked.iter().any(|b| b.contains(&ip.to_string()))));
    let new = run_pods(&mut node, 10..20);
    assert!(new.is_disjoint(&old), "{new:?}, {old:?}");
    for pod in 10..20 {
        node.del(pod);
        node.links.retain(|_, owner| *owner != key(pod));
    }
    for _ in 0..180 {
        report_a_minute_later(&mut node);
    }
    assert!(node.counts().total >= 10 && node.counts().total <= total + 16);
    let here = |ip: &IpAddr| {
        let mut blocks = node.ec2.enis.values().flat_map(|eni| &eni.blocks);
        blocks.any(|block| block.contains(*ip))
    };
    assert!(old.iter().all(here), "an address of a pod has gone back to EC2");

    for pod in 0..10 {
        node.del(pod);
    }
    node.links.clear();
    node.report_kernel();
    node.settle();
    assert_eq!(node.counts().quarantined, 0);
    assert_eq!(node.counts().cooling, 10, "the released addresses rest");
    node.pass(secs(31));
    assert_eq!((node.counts().cooling, node.counts().assigned), (0, 0));
}

#[test]
fn node_without_record_keeps_addresses_of_running_pods() {
    check_addresses_are_kept(warm_ip(2, 0));
}

#[test]
fn node_without_record_keeps_prefixes_of_running_pods() {
    check_addresses_are_kept(policy(BlockKind::V4Prefix, WarmSettings::default()));
}

#[test]
fn eni_with_an_unrecorded_pod_stays() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(0, 0));
    run_pods(&mut node, 0..4);
    assert_eq!(node.ec2.n_attached(), 2);
    node.links_are_marked = false;
    node.restart_without_record();
    for _ in 0..60 {
        report_a_minute_later(&mut node);
    }
    assert_eq!(node.ec2.n_attached(), 2);
    node.links.clear();
    for _ in 0..60 {
        report_a_minute_later(&mut node);
    }
    assert_eq!(node.ec2.n_attached(), 1);
}

/// The record gives the address to an old pod. The kernel shows it on a newer pod's link.
#[test]
fn address_of_a_stale_record_stays_withheld_after_release() {
    let policy = Setup { max_enis: Some(1), cooldown: secs(0), ..warm_ip(3, 3) };
    let mut node = Node::settled(limits("t3.small"), policy);
    let address = node.run_pod(0).address();
    node.links.insert(address, key(7));
    report_a_minute_later(&mut node);
    assert_eq!(quarantined(&node), BTreeSet::from([address]));
    assert_eq!((node.counts().assigned, node.counts().quarantined), (1, 0), "counted once");
    node.del(0);
    node.settle();
    assert_eq!((node.counts().assigned, node.counts().quarantined), (0, 1));
    let others = run_pods(&mut node, 1..3);
    assert!(!others.contains(&address));
    let refused = node.add(3);
    node.settle();
    assert!(node.refused(refused).message.contains("1 quarantined"), "no address is left");
    node.links.remove(&address);
    report_a_minute_later(&mut node);
    assert_eq!(node.run_pod(4).address(), address);
}

/// The pod gets no other address either: a record has one address for each attachment.
#[test]
fn add_whose_address_another_link_uses_is_refused() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(3, 3));
    let address = node.run_pod(0).address();
    node.links.insert(address, key(7));
    report_a_minute_later(&mut node);
    let again = node.add(0);
    node.pass(secs(60));
    assert!(node.refused(again).message.contains("quarantined"), "{:?}", node.refused(again));
    assert_eq!(node.record().owners().len(), 1);
    node.links.insert(address, key(0));
    report_a_minute_later(&mut node);
    assert_eq!(node.run_pod(0).address(), address);
}

#[test]
fn block_about_to_be_released_stays_if_a_link_uses_it() {
    let policy = Setup { cooldown: secs(0), shrink_delay: secs(0), ..warm_ip(0, 0) };
    let mut node = Node::settled(limits("t3.small"), policy);
    let address = node.run_pod(0).address();
    node.del(0);
    let is_intended =
        |node: &Node| node.view().in_flight.iter().any(|text| text.contains("Unassign"));
    while !is_intended(&node) {
        node.end_save(Ok(()));
    }
    assert!(node.calls.is_empty(), "the intent is not on record yet");
    node.links.insert(address, key(7));
    node.now = node.now + secs(1);
    node.report_kernel();
    node.settle();
    assert_eq!((node.counts().quarantined, node.ec2.n_blocks()), (1, vec![1]));
    assert!(node.record().intents().is_empty());
    node.links.clear();
    report_a_minute_later(&mut node);
    node.pass(secs(60));
    assert_eq!(node.ec2.n_blocks(), [0], "the block goes back without the link");
}

#[test]
fn kernel_report_does_not_judge_later_changes() {
    let policy = Setup { cooldown: secs(0), ..warm_ip(3, 3) };
    let mut node = Node::settled(limits("t3.small"), policy);
    let begun = node.now;
    node.now = node.now + secs(1);
    let [stays, goes] = [0, 1].map(|pod| node.run_pod(pod).address());
    node.links.extend([(stays, key(9)), (goes, key(1))]);
    node.del(1);
    node.settle();
    node.report_kernel_from(begun);
    assert_eq!(quarantined(&node), BTreeSet::new());
    node.now = node.now + secs(1);
    node.report_kernel();
    assert_eq!(quarantined(&node), BTreeSet::from([stays, goes]), "a later report is judged");
}

#[test]
fn cooldown_that_is_not_recorded_has_not_begun() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(1, 0));
    node.kernel_answers = false;
    let old = run_pods(&mut node, 0..2);
    node.links_are_marked = false;
    node.restart_without_record();
    node.settle();
    node.links.clear();
    node.report_kernel();
    node.end_save(Err("disk full".to_owned()));
    assert_eq!(quarantined(&node), old);
    report_a_minute_later(&mut node);
    assert_eq!(quarantined(&node), BTreeSet::new());
    assert_eq!(node.counts().cooling, 2);
}

/// The disk takes longer than the time between two reports.
#[test]
fn cooldown_counts_from_the_recorded_moment() {
    let mut node = Node::settled(limits("t3.small"), Setup { cooldown: secs(90), ..warm_ip(1, 0) });
    let address = run_pods(&mut node, 0..1).pop_first().unwrap();
    node.links_are_marked = false;
    node.restart_without_record();
    node.settle();
    node.links.clear();
    node.report_kernel();
    node.now = node.now + secs(60);
    node.report_kernel();
    node.end_save(Ok(()));
    assert_eq!((node.counts().quarantined, node.counts().cooling), (1, 0));
    node.settle();
    let rests_from = node.record().cooling()[&address];
    assert_eq!(rests_from, node.now);
    let uses = node.view().enis.into_iter().flat_map(|eni| eni.blocks.into_values());
    let cooling: Vec<_> = uses.flat_map(|used| used.cooling).collect();
    assert_eq!(cooling, [(address, rests_from + secs(90))]);
}

#[test]
fn link_returning_during_the_save_stays_withheld() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(1, 0));
    run_pods(&mut node, 0..1);
    node.links_are_marked = false;
    node.restart_without_record();
    node.settle();
    let links = std::mem::take(&mut node.links);
    node.report_kernel();
    node.links = links;
    node.report_kernel();
    node.settle();
    assert_eq!((node.counts().quarantined, node.counts().cooling), (1, 0));
}

#[test]
fn vanished_pod_is_released_at_the_second_report() {
    let check = |reports: &[(u64, bool)], released: bool| {
        let mut node = Node::settled(limits("t3.small"), warm_ip(1, 0));
        let address = node.run_pod(0).address();
        node.ended.insert(key(0));
        for (at, has_link) in reports {
            node.now = node.now + secs(*at);
            node.links.clear();
            node.links.extend(has_link.then(|| (address, key(0))));
            node.report_kernel();
            node.settle();
        }
        assert_eq!(node.record().assignments().is_empty(), released, "{reports:?}");
        assert_eq!(node.counts().cooling, u64::from(released), "{reports:?}");
    };
    check(&[(200, false)], false);
    check(&[(200, false), (59, false)], false);
    check(&[(200, false), (60, false)], true);
    check(&[(200, false), (30, true), (30, false)], false);
    check(&[(200, false), (30, true), (30, false), (60, false)], true);
    // The pod's ADD may still be creating the link.
    check(&[(10, false), (100, false)], false);
    check(&[(10, false), (139, false)], false);
    check(&[(10, false), (140, false)], true);
}

#[test]
fn slow_reports_a_minute_apart_release_a_vanished_pod() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(1, 0));
    node.run_pod(0);
    node.ended.insert(key(0));
    let first = node.now + secs(200);
    for (begun, took) in [(first, 5), (first + secs(60), 1)] {
        assert_eq!(node.record().assignments().len(), 1);
        node.now = begun + secs(took);
        node.report_kernel_from(begun);
        node.settle();
    }
    assert!(node.record().assignments().is_empty());
}

#[test]
fn fifty_pods_are_added_while_dead_ones_are_released() {
    let policy = policy(BlockKind::V4Prefix, WarmSettings::default());
    let mut node = Node::settled(limits("m5.large"), policy);
    run_pods(&mut node, 0..20);
    node.pass(secs(200));
    for pod in 0..10 {
        node.ended.insert(key(pod));
        node.links.retain(|_, owner| *owner != key(pod));
    }
    node.report_kernel();
    node.pass(secs(60));
    let adds: Vec<_> = (20..70).map(|pod| node.add(pod)).collect();
    node.report_kernel();
    node.settle();
    let new: BTreeSet<_> = adds.iter().map(|add| node.granted(*add).address()).collect();
    assert_eq!(new.len(), 50);
    let alive: BTreeSet<_> = node.record().assignments().keys().cloned().collect();
    assert_eq!(alive, (10..70).map(key).collect());
}

/// The next report, a minute later. The runtime lists these pods' sandboxes.
fn runtime_lists(node: &mut Node, pods: impl IntoIterator<Item = usize>) {
    node.listed = Some(pods.into_iter().map(|pod| key(pod).container).collect());
    report_a_minute_later(node);
}

fn runtime_does_not_answer(node: &mut Node) {
    node.listed = None;
    report_a_minute_later(node);
}

fn on_record(node: &Node) -> BTreeSet<AttachmentKey> {
    node.record().assignments().keys().cloned().collect()
}

fn links_to_remove(node: &Node) -> BTreeSet<IpAddr> {
    node.to_take_down.keys().copied().collect()
}

/// A node with three addresses and no cooldown. Pods `0` and `1` have two of them. Also pod 0's address.
fn two_pods_on_three_addresses() -> (Node, IpAddr) {
    let policy = Setup { max_enis: Some(1), cooldown: secs(0), ..warm_ip(3, 3) };
    let mut node = Node::settled(limits("t3.small"), policy);
    run_pods(&mut node, 0..2);
    node.pass(secs(200));
    let address = node.record().assignments()[&key(0)].address();
    (node, address)
}

#[test]
fn address_of_an_unlisted_sandbox_serves_after_its_link_goes() {
    let (mut node, address) = two_pods_on_three_addresses();
    runtime_lists(&mut node, [0, 1]);
    runtime_lists(&mut node, [1]);
    assert_eq!(on_record(&node).len(), 2, "one report is not enough");
    assert_eq!(links_to_remove(&node), BTreeSet::new());
    node.pass(secs(60));
    node.report_kernel();
    assert_eq!(links_to_remove(&node), BTreeSet::new());
    assert_eq!(on_record(&node).len(), 2, "the release is not saved yet");
    node.settle();
    assert_eq!(on_record(&node), BTreeSet::from([key(1)]));
    assert_eq!(links_to_remove(&node), BTreeSet::from([address]));
    // The address does not serve before the next report either.
    assert_ne!(node.run_pod(2).address(), address);
    let refused = node.add(3);
    node.settle();
    assert!(node.refused(refused).message.contains("1 quarantined"), "no address is left");
    // By now the longest ADD is over, so links of ours without a record would be adopted.
    for _ in 0..5 {
        runtime_lists(&mut node, [1, 2]);
        assert_eq!(on_record(&node), BTreeSet::from([key(1), key(2)]));
        assert_eq!(links_to_remove(&node), BTreeSet::from([address]));
    }
    node.links.remove(&address);
    runtime_lists(&mut node, [1, 2]);
    assert_eq!(links_to_remove(&node), BTreeSet::new());
    node.pass(secs(2));
    assert_eq!(node.run_pod(4).address(), address);
}

#[test]
fn only_sandboxes_once_listed_are_released_as_unlisted() {
    let check = |reports: &[Option<&[usize]>], released: bool| {
        let (mut node, _) = two_pods_on_three_addresses();
        for listed in reports {
            match listed {
                Some(pods) => runtime_lists(&mut node, pods.iter().copied()),
                None => runtime_does_not_answer(&mut node),
            }
        }
        assert_eq!(!on_record(&node).contains(&key(0)), released, "{reports:?}");
        assert_eq!(!links_to_remove(&node).is_empty(), released, "{reports:?}");
        assert!(on_record(&node).contains(&key(1)), "{reports:?}");
    };
    let (both, one, others, nothing): (&[_], &[_], &[_], &[_]) = (&[0, 1], &[1], &[8, 9], &[]);
    check(&[Some(both), Some(one), Some(one)], true);
    check(&[Some(both), None, Some(one), None, Some(one)], true);
    // The runtime has never listed pod 0.
    check(&[Some(one); 9], false);
    check(&[Some(nothing), Some(one), Some(one), Some(one)], false);
    // The runtime does not answer.
    check(&[Some(both), None, None, None], false);
    check(&[Some(both), Some(one), None, None, None], false);
    // The runtime lists pod 0 again.
    check(&[Some(both), Some(one), Some(both), Some(one)], false);
    check(&[Some(both), Some(one), Some(both), Some(one), Some(one)], true);
    // No sandbox that was listed is listed now: it is another runtime, or has lost its store.
    check(&[Some(others); 4], false);
    check(&[Some(both), Some(others), Some(others), Some(others)], false);
    check(&[Some(both), Some(nothing), Some(nothing), Some(nothing)], false);
    check(&[Some(both), Some(one), Some(nothing), Some(one), Some(one), Some(one)], false);
    check(&[Some(both), Some(others), Some(both), Some(one), Some(one)], true);
}

/// Reports come seconds apart when links disappear.
#[test]
fn reports_under_a_minute_apart_release_nothing() {
    let (mut node, _) = two_pods_on_three_addresses();
    runtime_lists(&mut node, [0, 1]);
    node.listed = Some([key(1).container].into());
    for _ in 0..5 {
        node.pass(secs(10));
        node.report_kernel();
    }
    node.settle();
    assert_eq!(on_record(&node).len(), 2);
    report_a_minute_later(&mut node);
    assert_eq!(on_record(&node), BTreeSet::from([key(1)]));
}

/// An unmarked link belongs to a pod of amazon-vpc-cni-k8s. A marked one is left over from a failed DEL.
#[test]
fn unlisted_sandboxs_link_is_removed_only_if_marked() {
    let (mut node, address) = two_pods_on_three_addresses();
    runtime_lists(&mut node, [0, 1]);
    node.links_are_marked = false;
    for _ in 0..4 {
        runtime_lists(&mut node, [1]);
    }
    assert_eq!((on_record(&node).len(), links_to_remove(&node)), (2, BTreeSet::new()));
    node.links_are_marked = true;
    node.del(0);
    for _ in 0..2 {
        runtime_lists(&mut node, [1]);
    }
    assert_eq!(on_record(&node), BTreeSet::from([key(1)]));
    assert_eq!(links_to_remove(&node), BTreeSet::from([address]));
}

#[test]
fn link_is_removed_only_after_the_release_is_recorded() {
    let (mut node, address) = two_pods_on_three_addresses();
    runtime_lists(&mut node, [0, 1]);
    runtime_lists(&mut node, [1]);
    node.pass(secs(60));
    node.report_kernel();
    node.end_save(Err("disk full".to_owned()));
    assert_eq!((on_record(&node).len(), links_to_remove(&node)), (2, BTreeSet::new()));
    runtime_lists(&mut node, [1]);
    assert_eq!(on_record(&node), BTreeSet::from([key(1)]));
    assert_eq!(links_to_remove(&node), BTreeSet::from([address]));
}

#[test]
fn report_and_loss_restore_the_pods_on_record() {
    let (mut node, disputed) = two_pods_on_three_addresses();
    let both = BTreeSet::from([key(0), key(1)]);
    let restored = |node: &Node| node.restored.keys().cloned().collect::<BTreeSet<_>>();
    node.report_kernel();
    assert_eq!(restored(&node), both);
    node.restored.clear();
    node.send(Event::PodPartLost);
    assert_eq!(restored(&node), both);

    // The next save waits, so the release of pod 1 is under way.
    node.del(1);
    node.restored.clear();
    node.send(Event::PodPartLost);
    assert_eq!(restored(&node), BTreeSet::from([key(0)]));

    // A link of another pod uses the address of pod 0.
    node.links.insert(disputed, key(7));
    node.report_kernel();
    assert_eq!(restored(&node), BTreeSet::new());
}

/// Host tools put the secondary addresses of ENIs on the ENIs' devices.
#[test]
fn address_on_the_host_goes_to_no_pod() {
    let (mut node, address) = two_pods_on_three_addresses();
    let free = node.ec2.enis.values().flat_map(|eni| &eni.blocks);
    let free: BTreeSet<_> = free.map(|block| block.bounds().0).collect();
    let used: BTreeSet<_> = node.record().owners().keys().copied().collect();
    let free = *free.difference(&used).next().unwrap();
    let mac = node.ec2.enis.values().next().unwrap().mac;
    let on = |name: &str, mac| AddressedLink { name: name.to_owned(), mac };
    node.on_host = [(address, on("ens5", mac)), (free, on("dummy0", MacAddr::NONE))].into();
    node.report_kernel();
    node.settle();
    let expect = BTreeMap::from([(address, "ens5".to_owned())]);
    assert_eq!(node.off_host, expect, "only an ENI's device is ours to change");
    assert_eq!(node.view().host_addresses.len(), 2);
    assert_eq!(quarantined(&node), BTreeSet::from([free]));
    for ip in [address, free] {
        let phrase = format!("{ip} is on the host's link ");
        assert!(node.view().blocked.iter().any(|line| line.starts_with(&phrase)), "{phrase}");
    }
    let request = node.add(2);
    node.settle();
    node.refused(request);

    node.on_host.clear();
    node.report_kernel();
    node.pass(secs(2));
    assert_eq!(node.run_pod(3).address(), free);
    assert_eq!(node.view().host_addresses.len(), 0);
}

/// The plugin takes the link down after the release.
#[test]
fn kernel_is_not_read_in_the_first_half_of_a_short_rest() {
    let policy = Setup { max_enis: Some(1), cooldown: secs(4), ..warm_ip(3, 3) };
    let mut node = Node::settled(limits("t3.small"), policy);
    run_pods(&mut node, 0..3);
    node.report_kernel();
    node.kernel_answers = false;
    node.del(0);
    node.settle();
    node.pass(secs(1));
    assert!(!node.kernel_is_asked);
    node.pass(secs(1));
    assert!(node.kernel_is_asked);
}

/// The pod's DEL has left its link, so the kernel still routes the address when its cooldown ends.
#[test]
fn address_that_is_still_routed_serves_no_other_pod() {
    let mut node = Node::settled(limits("t3.small"), Setup { max_enis: Some(1), ..warm_ip(3, 3) });
    let address = run_pods(&mut node, 0..3).pop_first().unwrap();
    node.pass(secs(200));
    node.report_kernel();
    let pod = node.links[&address].clone();
    let request = node.request();
    node.send(Event::Del { request, key: pod });
    node.pass(secs(31));
    let refused = node.add(3);
    node.settle();
    assert!(node.refused(refused).message.contains("1 quarantined"), "{:?}", node.refused(refused));
    node.links.remove(&address);
    node.report_kernel();
    node.pass(secs(31));
    assert_eq!(node.run_pod(4).address(), address);
}

#[test]
fn rest_outlasts_the_cooldown_until_the_kernel_is_read() {
    let mut node = Node::settled(limits("t3.small"), Setup { max_enis: Some(1), ..warm_ip(3, 3) });
    run_pods(&mut node, 0..3);
    node.report_kernel();
    node.kernel_answers = false;
    node.del(0);
    node.settle();
    let address = *node.record().cooling().keys().next().unwrap();
    node.links.remove(&address);
    node.pass(secs(24));
    assert!(!node.kernel_is_asked, "the rest has six more seconds");
    node.pass(secs(1));
    assert!(node.kernel_is_asked);
    node.pass(secs(100));
    let waiting = node.add(3);
    node.settle();
    assert_eq!(node.answer(waiting), None, "{:?}", node.answer(waiting));
    assert_eq!(node.counts().cooling, 1);
    // A report that began before the release shows nothing of what has become of the pod.
    let released_at = node.record().cooling()[&address];
    node.report_kernel_from(released_at);
    assert_eq!(node.answer(waiting), None, "{:?}", node.answer(waiting));
    node.report_kernel();
    node.settle();
    assert_eq!(node.granted(waiting).address(), address);
}

/// The pool cannot grow, and the address that the pod would get has rested for longer than its cooldown.
#[test]
fn pod_that_waits_for_the_kernel_is_told_so() {
    let mut node = Node::settled(limits("t3.small"), Setup { max_enis: Some(1), ..warm_ip(3, 3) });
    run_pods(&mut node, 0..3);
    node.report_kernel();
    node.kernel_answers = false;
    let address = node.record().assignments()[&key(0)].address();
    node.del(0);
    node.settle();
    node.links.remove(&address);
    let refusal = |node: &mut Node, pod| {
        let add = node.add(pod);
        node.pass(secs(10));
        node.refused(add).clone()
    };
    assert_eq!(refusal(&mut node, 3).code, RefusalCode::AllCooling);
    node.pass(secs(30));
    assert!(refusal(&mut node, 4).message.ends_with("no report has come"));
    node.send(Event::KernelUnread("list the links: no memory".to_owned()));
    let refusal = refusal(&mut node, 5);
    assert_eq!(refusal.code, RefusalCode::KernelUnread, "{}", refusal.message);
    assert!(refusal.message.contains("list the links: no memory"), "{}", refusal.message);
    assert!(refusal.retry_after.is_some_and(|after| after <= secs(1)), "{refusal:?}");
    let named = |node: &Node| {
        node.view().blocked.iter().any(|line| line.starts_with("KERNEL_UNREAD: 1 addresses may"))
    };
    assert!(named(&node), "{:?}", node.view().blocked);
    node.report_kernel();
    node.settle();
    assert!(!named(&node), "{:?}", node.view().blocked);
    assert_eq!(node.run_pod(6).address(), address);
}

/// The record still has the pod when the report comes, so its link is no contradiction.
#[test]
fn report_before_the_release_is_on_record_checks_nothing() {
    let (mut node, address) = two_pods_on_three_addresses();
    node.report_kernel();
    node.kernel_answers = false;
    node.run_pod(2);
    node.del(0);
    node.now = node.now + secs(1);
    node.report_kernel();
    node.settle();
    let waiting = node.add(3);
    node.settle();
    assert_eq!(node.answer(waiting), None, "{:?}", node.answer(waiting));
    node.links.remove(&address);
    node.now = node.now + secs(1);
    node.report_kernel();
    node.settle();
    assert_eq!(node.granted(waiting).address(), address);
}

#[test]
fn engine_without_any_report_asks_for_none() {
    let mut node = Node::settled(limits("t3.small"), warm_ip(1, 0));
    let address = node.run_pod(0).address();
    node.del(0);
    node.pass(secs(200));
    assert!(!node.kernel_is_asked);
    assert_eq!(node.counts().cooling, 0);
    assert_eq!(node.run_pod(1).address(), address);
}
