//! A pod with several interfaces: two of ours, or one of ours beside another plugin's.

use serde_json::json;

use crate::fake::{Mode, on_eni};
use crate::node::{Call, Node, Pod};

fn net1<'a>(node: &'a Node, verb: &str, pod: &Pod) -> Call<'a> {
    let mut call = node.pod_call(verb, pod);
    call.set("CNI_IFNAME", "net1");
    call
}

/// All that the pod's routes and rules have, without the kernel's own.
fn routing(pod: &Pod) -> String {
    ["rule", "route show table all"].map(|args| pod.netns.ip(args)).join("")
}

#[test]
fn add_of_a_second_interface_leaves_the_first_as_it_was() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let first = node.add(&pod);
    let before = (node.host.dump(), pod.netns.dump());
    // More than once, as hot-plugged interfaces come and go.
    for _ in 0..2 {
        let second = net1(&node, "ADD", &pod).run().result();
        assert_ne!(second["interfaces"][0]["name"], first["interfaces"][0]["name"]);
        assert_eq!(second["interfaces"][1]["name"], "net1");
        assert_ne!(second["ips"], first["ips"]);
        assert_eq!(second.get("routes"), None, "the default route is the first one's: {second}");
        node.pod_call("CHECK", &pod).conf("prevResult", first.clone()).run().silent();
        net1(&node, "CHECK", &pod).conf("prevResult", second.clone()).run().silent();
        assert!(pod.netns.ip("route show default").contains("dev eth0"), "{}", routing(&pod));
        let address = second["ips"][0]["address"].as_str().unwrap().trim_end_matches("/32");
        let way = pod.netns.ip(&format!("route get 192.0.2.1 from {address}"));
        assert!(way.contains("via 169.254.1.1 dev net1"), "{way}");
        net1(&node, "DEL", &pod).conf("prevResult", second).run().silent();
        assert_eq!((node.host.dump(), pod.netns.dump()), before);
        assert_eq!(node.ipamd().held(), ["10.0.0.1"]);
    }
}

#[test]
fn add_beside_another_plugins_eth0_leaves_its_routes() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    for args in [
        "link set lo up",
        "link add name eth0 type veth peer name other",
        "link set eth0 up",
        "link set other up",
        "addr add 10.9.0.2/24 dev eth0",
        "route add default via 10.9.0.1 dev eth0",
    ] {
        pod.netns.ip(args);
    }
    let before = (node.host.dump(), pod.netns.dump());
    for (harm, part) in [
        ("rule del pref 1536", "the pod has no rule 1536: from 10.0.0.1"),
        ("route flush table all dev net1", "no route"),
    ] {
        node.ipamd().set(Mode::Granting(vec![on_eni("10.0.0.1", 0)]));
        let result = net1(&node, "ADD", &pod).run().result();
        assert!(pod.netns.ip("route show default").starts_with("default via 10.9.0.1 dev eth0"));
        let way = pod.netns.ip("route get 192.0.2.1 from 10.0.0.1");
        assert!(way.contains("via 169.254.1.1 dev net1"), "{way}");
        net1(&node, "CHECK", &pod).conf("prevResult", result.clone()).run().silent();
        pod.netns.ip(harm);
        net1(&node, "CHECK", &pod).conf("prevResult", result).run().fails(153, part);
        net1(&node, "DEL", &pod).run().silent();
        assert_eq!((node.host.dump(), pod.netns.dump()), before);
    }
}

/// A caller that has no other interface gives it any name.
#[test]
fn only_interface_of_any_name_has_the_default_route() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let result = net1(&node, "ADD", &pod).run().result();
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]));
    assert!(pod.netns.ip("route show default").contains("via 169.254.1.1 dev net1"));
    net1(&node, "CHECK", &pod).conf("prevResult", result.clone()).run().silent();
    pod.netns.ip("route del default");
    net1(&node, "CHECK", &pod).conf("prevResult", result).run().fails(153, "no route");
}
