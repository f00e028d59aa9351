//! DEL with a daemon that removes links: the link waits for its removal, and is in nobody's way.

use crate::fake::Mode;
use crate::node::{Node, Pod};

/// A node whose daemon says that it removes links. It does not, so that a test sees the state before.
fn node() -> Option<Node> {
    let node = Node::new()?;
    node.ipamd().set(Mode::RemovingLinks);
    Some(node)
}

/// The links that wait.
fn retired(node: &Node) -> usize {
    node.host.ip("-o link show group 1414087749").lines().count()
}

fn is_connected(node: &Node, pod: &Pod) -> bool {
    node.host.ip("-o link").contains(&format!("{}@", pod.host_name()))
}

#[test]
fn del_leaves_the_link_to_the_daemon() {
    let Some(node) = node() else { return };
    let before = (node.host.ip("rule"), node.host.ip("route show table all"));
    let pods = [node.pod("c1", "p1"), node.pod("c2", "p2")];
    for pod in &pods {
        node.add(pod);
    }
    for _ in 0..2 {
        pods.iter().for_each(|pod| node.del(pod));
        assert_eq!(retired(&node), pods.len());
        assert_eq!((node.host.ip("rule"), node.host.ip("route show table all")), before);
        assert!(node.ipamd().held().is_empty() && node.pending().is_empty());
    }
    drop(pods);
}

/// As a runtime does that tries again with the same sandbox.
#[test]
fn add_after_del_uses_the_sandbox_again() {
    let Some(node) = node() else { return };
    let pod = node.pod("c1", "p1");
    for _ in 0..3 {
        let result = node.add(&pod);
        assert_eq!(retired(&node), 0);
        let mut check = node.pod_call("CHECK", &pod);
        check.conf("prevResult", result).run().silent();
        node.pod_call("ADD", &pod).run().fails(150, "eth0");
        node.del(&pod);
        check.run().error();
        assert_eq!(retired(&node), 1);
    }
}

/// As for a pod of a StatefulSet.
#[test]
fn add_of_the_same_name_replaces_the_retired_link() {
    let Some(node) = node() else { return };
    let old = node.pod("c-old", "web-0");
    node.add(&old);
    node.del(&old);
    let new = node.pod("c-new", "web-0");
    node.add(&new);
    node.del(&old);
    assert!(is_connected(&node, &new));
    assert_eq!(retired(&node), 0);
}

#[test]
fn del_without_the_daemon_removes_retired_links_too() {
    let Some(mut node) = node() else { return };
    let before = node.host.dump();
    let pods = ["c1", "c2", "c3"].map(|container| node.pod(container, container));
    for pod in &pods {
        node.add(pod);
    }
    node.del(&pods[0]);
    node.del(&pods[1]);
    node.stop_ipamd();
    node.del(&pods[2]);
    assert_eq!(node.host.dump(), before);
    node.del(&pods[0]);
    assert_eq!(node.host.dump(), before);
}

/// An older daemon does not say that it removes links.
#[test]
fn del_with_an_older_daemon_removes_the_link() {
    let Some(node) = Node::new() else { return };
    let before = node.host.dump();
    let pod = node.pod("c1", "p1");
    node.add(&pod);
    node.del(&pod);
    assert_eq!(node.host.dump(), before);
}

/// The pod goes on running, and would still see the interface.
#[test]
fn del_of_a_further_interface_removes_it_at_once() {
    let Some(node) = node() else { return };
    let pod = node.pod("c1", "p1");
    node.add(&pod);
    let before = (node.host.dump(), pod.netns.dump());
    node.pod_call("ADD", &pod).set("CNI_IFNAME", "net1").run().result();
    node.pod_call("DEL", &pod).set("CNI_IFNAME", "net1").run().silent();
    assert_eq!((node.host.dump(), pod.netns.dump()), before);
    assert!(is_connected(&node, &pod));
}
