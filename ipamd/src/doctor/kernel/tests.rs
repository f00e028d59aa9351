//! Pods on record against links.

use super::*;

fn held(mark: &str, addresses: &[&str]) -> Held {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Held { name: format!("default/{mark}"), mark: mark.to_owned(), addresses }
}

fn link(owner: Option<&str>, addresses: &[&str]) -> HostLink {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    HostLink { name: "eni0".to_owned(), owner: owner.map(str::to_owned), addresses }
}

fn check(held: &[Held], links: &[HostLink], expect: &[(&str, &str)]) {
    let found = compare(held, links);
    let found: Vec<_> = found.iter().map(|it| (it.code.as_str(), it.subject.as_str())).collect();
    assert_eq!(found, expect);
}

#[test]
fn pods_and_links_that_agree_have_no_finding() {
    let both = held("c1/eth0", &["10.0.0.7", "2001:db8::7"]);
    check(&[both], &[link(Some("c1/eth0"), &["10.0.0.7", "2001:db8::7", "169.254.172.2"])], &[]);
    check(&[held("c1/eth0", &["10.0.0.7"])], &[link(None, &["10.0.0.7"])], &[]);
    check(&[], &[link(None, &["192.168.0.7"])], &[]);
}

#[test]
fn each_side_that_lacks_the_other_is_named() {
    let pod = [held("c1/eth0", &["10.0.0.7"])];
    check(&pod, &[], &[("pod_without_link", "default/c1/eth0")]);
    check(&pod, &[link(Some("c1/eth0"), &[])], &[("pod_without_route", "default/c1/eth0")]);
    check(&[], &[link(Some("c2/eth0"), &["10.0.0.7"])], &[("link_without_record", "eni0")]);
}
