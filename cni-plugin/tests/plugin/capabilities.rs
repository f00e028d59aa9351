//! Assertion 63: what our entry of the conflist declares is honoured. Also `DISABLE_POD_V6`.

use std::fs;

use serde_json::{Value, json};

use crate::fake::{Mode, on_eni};
use crate::node::{Call, Node, Pod};

/// With a host port and limits, as containerd writes them.
fn with_all<'a>(node: &'a Node, verb: &str, pod: &Pod, host_port: u16) -> Call<'a> {
    let mut call = node.pod_call(verb, pod);
    call.conf(
        "runtimeConfig",
        json!({
            "portMappings": [
                {"HostPort": host_port, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""},
                {"HostPort": host_port, "ContainerPort": 53, "Protocol": "udp", "HostIP": "10.0.0.9"},
            ],
            "bandwidth": {
                "IngressRate": 1_000_000, "IngressBurst": 4_294_967_295_u64,
                "EgressRate": 2_000_000, "EgressBurst": 4_294_967_295_u64,
            },
        }),
    );
    call
}

fn exec(netns: &std::path::Path, command: &str) -> String {
    let namespace = netns.file_name().unwrap().to_str().unwrap();
    let mut ip = std::process::Command::new("ip");
    let output = ip.args(["netns", "exec", namespace]).args(command.split(' ')).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn ruleset(node: &Node) -> String {
    exec(&node.host.path(), "nft list ruleset")
}

fn notes(node: &Node) -> Vec<String> {
    let directory = proto::ports::directory(&node.socket());
    let Ok(files) = fs::read_dir(directory) else { return Vec::new() };
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

fn limits_of(node: &Node, pod: &Pod) -> [String; 2] {
    let of =
        |netns: &std::path::Path, device: &str| exec(netns, &format!("tc qdisc show dev {device}"));
    [of(&node.host.path(), &pod.host_name()), of(&pod.netns.path(), "eth0")]
}

#[test]
fn a63_declared_capabilities_are_honoured_and_gone_after_del() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let result = with_all(&node, "ADD", &pod, 8080).run().result();
    let rules = ruleset(&node);
    for element in [
        "tcp . 8080 comment \"c1/eth0\" : 10.0.0.1 . 80",
        "10.0.0.9 . udp . 8080 comment \"c1/eth0\" : 10.0.0.1 . 53",
    ] {
        assert!(rules.contains(element), "{rules}");
    }
    for (end, rate) in limits_of(&node, &pod).iter().zip(["1Mbit", "2Mbit"]) {
        assert!(end.contains("tbf") && end.contains(&format!("rate {rate} ")), "{end}");
    }
    assert_eq!(notes(&node), ["c1:eth0.ports"]);
    let check = |call: &mut Call<'_>| call.conf("prevResult", result.clone()).run();
    check(&mut with_all(&node, "CHECK", &pod, 8080)).silent();
    with_all(&node, "DEL", &pod, 8080).run().silent();
    assert!(!ruleset(&node).contains("c1/eth0"), "{}", ruleset(&node));
    assert_eq!(notes(&node), [] as [&str; 0]);
    with_all(&node, "DEL", &pod, 8080).run().silent();
}

/// An entry that declares nothing gets nothing: then plugins after ours do it.
#[test]
fn pod_without_capabilities_has_no_table_and_no_limit() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    node.add(&pod);
    assert_eq!(ruleset(&node), "");
    assert_eq!(notes(&node), [] as [&str; 0]);
    assert!(
        limits_of(&node, &pod).iter().all(|end| !end.contains("tbf")),
        "{:?}",
        limits_of(&node, &pod)
    );
    node.del(&pod);
    assert_eq!(ruleset(&node), "");
}

/// The daemon is down, the runtime has lost its cache, and the namespace is gone.
#[test]
fn ports_go_with_a_del_that_has_nothing_but_the_note() {
    let Some(mut node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    with_all(&node, "ADD", &pod, 8080).run().result();
    node.stop_ipamd();
    let mut del = node.pod_call("DEL", &pod);
    del.set("CNI_NETNS", "");
    drop(pod);
    del.run().silent();
    assert!(!ruleset(&node).contains("c1/eth0"), "{}", ruleset(&node));
    assert_eq!(notes(&node), [] as [&str; 0]);
}

#[test]
fn ports_go_with_a_del_that_has_no_note() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    with_all(&node, "ADD", &pod, 8080).run().result();
    fs::remove_dir_all(proto::ports::directory(&node.socket())).unwrap();
    with_all(&node, "DEL", &pod, 8080).run().silent();
    assert!(!ruleset(&node).contains("c1/eth0"), "{}", ruleset(&node));
}

/// A note of a later version, or one that was cut off.
#[test]
fn ports_go_with_a_del_that_cannot_read_the_note() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    with_all(&node, "ADD", &pod, 8080).run().result();
    let note = proto::ports::directory(&node.socket()).join(&notes(&node)[0]);
    fs::write(note, "tidepool host ports 2\nc1/eth0\n").unwrap();
    node.pod_call("DEL", &pod).run().silent();
    assert!(!ruleset(&node).contains("c1/eth0"), "{}", ruleset(&node));
    assert_eq!(notes(&node), [] as [&str; 0]);
}

#[test]
fn ports_of_collected_pods_go_and_others_stay() {
    let Some(node) = Node::new() else { return };
    let [kept, gone] = [("c1", 8080), ("c2", 8081)].map(|(container, port)| {
        let pod = node.pod(container, container);
        with_all(&node, "ADD", &pod, port).run().result();
        pod
    });
    let mut gc = node.call("GC");
    let valid = json!([{"containerID": kept.container, "ifname": "eth0"}]);
    gc.conf("cni.dev/valid-attachments", valid).run().silent();
    let rules = ruleset(&node);
    assert!(rules.contains("c1/eth0") && !rules.contains("c2/eth0"), "{rules}");
    assert_eq!(notes(&node), ["c1:eth0.ports"]);
    drop(gone);
}

#[test]
fn host_port_of_another_pod_is_refused_and_nothing_is_left() {
    let Some(node) = Node::new() else { return };
    let pods = [node.pod("c1", "p1"), node.pod("c2", "p2")];
    with_all(&node, "ADD", &pods[0], 8080).run().result();
    let before = (ruleset(&node), node.host.dump());
    let answer = with_all(&node, "ADD", &pods[1], 8080).run();
    answer.fails(157, "HOST_PORT_TAKEN; host port tcp *:8080 10.0.0.2:80 is taken by c1/eth0");
    assert_eq!((ruleset(&node), node.host.dump()), before);
    assert!(!pods[1].netns.ip("-o link").contains("eth0"));
    assert_eq!(notes(&node), ["c1:eth0.ports"]);
    assert_eq!(node.ipamd().held(), ["10.0.0.1"]);
    // The DEL that follows takes nothing of the other pod.
    with_all(&node, "DEL", &pods[1], 8080).run().silent();
    assert_eq!(ruleset(&node), before.0);
    with_all(&node, "DEL", &pods[0], 8080).run().silent();
    with_all(&node, "ADD", &pods[1], 8080).run().result();
}

#[test]
fn add_that_cannot_note_its_ports_leaves_nothing() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    fs::write(proto::ports::directory(&node.socket()), "in the way").unwrap();
    let before = node.host.dump();
    with_all(&node, "ADD", &pod, 8080).run().fails(5, "cannot note the pod's host ports");
    assert_eq!(node.host.dump(), before);
    assert!(!pod.netns.ip("-o link").contains("eth0"));
    assert!(!ruleset(&node).contains("c1/eth0"), "{}", ruleset(&node));
    assert_eq!(node.ipamd().held(), [] as [&str; 0]);
}

#[test]
fn a39_check_names_each_capability_that_is_missing() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let result = with_all(&node, "ADD", &pod, 8080).run().result();
    let check = || with_all(&node, "CHECK", &pod, 8080).conf("prevResult", result.clone()).run();
    exec(&node.host.path(), "nft delete element inet tidepool-ports any4 { tcp . 8080 }");
    check().fails(153, "does not lead these ports to the pod: tcp *:8080 10.0.0.1:80");
    exec(&node.host.path(), "nft flush ruleset");
    check().fails(153, "tcp *:8080 10.0.0.1:80, udp 10.0.0.9:8080 10.0.0.1:53");
    exec(&pod.netns.path(), "tc qdisc del dev eth0 root");
    check().fails(153, "eth0 has no limit of 250000 bytes per second");
    exec(&node.host.path(), &format!("tc qdisc del dev {} root", pod.host_name()));
    check().fails(153, &format!("{} has no limit of 125000 bytes per second", pod.host_name()));
}

#[test]
fn limits_of_the_entry_itself_are_set() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let mut add = node.pod_call("ADD", &pod);
    add.conf("egressRate", 8_000_000).conf("egressBurst", 800_000).run().result();
    let [host, own] = limits_of(&node, &pod);
    assert!(!host.contains("tbf"), "{host}");
    assert!(own.contains("rate 8Mbit ") && own.contains("burst 100000b"), "{own}");
}

#[test]
fn bad_capability_is_refused_before_the_daemon_is_asked() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("c1", "p1");
    let refuses = |runtime_config: Value, part: &str| {
        let mut add = node.pod_call("ADD", &pod);
        add.conf("runtimeConfig", runtime_config).run().fails(7, part);
    };
    refuses(json!({"portMappings": [{"hostPort": 80}]}), "portMappings");
    refuses(json!({"bandwidth": {"ingressRate": 1}}), "bandwidth");
    assert!(node.ipamd().memory().calls.is_empty());
    let twice = json!({"portMappings": [
        {"hostPort": 80, "containerPort": 80}, {"hostPort": 80, "containerPort": 81},
    ]});
    refuses(twice, "is asked for twice");
    assert_eq!(node.ipamd().held(), [] as [&str; 0]);
}

#[test]
fn ipv6_is_off_in_pods_without_it_if_the_daemon_says_so() {
    let Some(node) = Node::new() else { return };
    let ipv6_is_off =
        |pod: &Pod| exec(&pod.netns.path(), "cat /proc/sys/net/ipv6/conf/all/disable_ipv6");
    let as_it_is = node.pod("c1", "p1");
    node.add(&as_it_is);
    assert_eq!(ipv6_is_off(&as_it_is), "0\n");
    node.ipamd().set(Mode::WithoutIpv6);
    let off = node.pod("c2", "p2");
    let result = node.pod_call("ADD", &off).run().result();
    assert_eq!(ipv6_is_off(&off), "1\n");
    assert_eq!(off.netns.ip("-6 addr"), "");
    let check = || node.pod_call("CHECK", &off).conf("prevResult", result.clone()).run();
    check().silent();
    for interfaces in ["eth0", "lo", "all"] {
        let switch = |value| {
            exec(
                &off.netns.path(),
                &format!("sysctl -q -w net.ipv6.conf.{interfaces}.disable_ipv6={value}"),
            );
        };
        switch(0);
        check().fails(153, &format!("net.ipv6.conf.{interfaces}.disable_ipv6 is not 1"));
        switch(1);
    }
    check().silent();
    // Another daemon may grant such an address nevertheless, in the VPC or of the node.
    for (container, address, node_local) in
        [("c3", "fd00::1", ""), ("c4", "10.0.0.9", "fd00::ac:2")]
    {
        let key = ("net".to_owned(), container.to_owned(), "eth0".to_owned());
        let record = crate::fake::Record {
            pod: proto::v1::Pod::default(),
            addresses: vec![on_eni(address, 0)],
            node_local: node_local.to_owned(),
        };
        node.ipamd().memory().records.insert(key, record);
        let on_ipv6 = node.pod(container, container);
        node.add(&on_ipv6);
        assert_eq!(ipv6_is_off(&on_ipv6), "0\n", "{address} {node_local}");
    }
}

/// Runs one of the reference plugins of Debian in the node's namespace, after ours in the chain.
fn chained(node: &Node, verb: &str, pod: &Pod, conf: &Value) {
    use std::io::Write as _;
    let program = format!("/usr/lib/cni/{}", conf["type"].as_str().unwrap());
    let mut command = std::process::Command::new(&program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", &pod.container);
    command
        .env("CNI_NETNS", pod.netns.path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/usr/lib/cni");
    let piped = std::process::Stdio::piped;
    command.stdin(piped()).stdout(piped()).stderr(piped());
    let host = datapath::netns::Netns::open(&node.host.path()).unwrap();
    let mut child = host.run(|| command.spawn()).unwrap().unwrap();
    child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {verb}: {output:?}");
}

/// Then theirs declare the capabilities, and ours gets nothing of them.
#[test]
fn chained_portmap_and_bandwidth_of_others_work() {
    let Some(node) = Node::new() else { return };
    node.host.ip("addr add 10.9.0.10/32 dev lo");
    let pod = node.pod("c1", "p1");
    // Debian's speak no newer version.
    let result = node.pod_call("ADD", &pod).conf("cniVersion", "1.0.0").run().result();
    let conf = |kind: &str, runtime_config: Value| {
        json!({
            "cniVersion": "1.0.0", "name": "net", "type": kind, "snat": true,
            "runtimeConfig": runtime_config, "prevResult": result,
        })
    };
    let mapping = json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp"});
    let portmap = conf("portmap", json!({"portMappings": [mapping]}));
    let limits = json!({"ingressRate": 1_000_000, "ingressBurst": 1_000_000});
    let bandwidth = conf("bandwidth", json!({"bandwidth": limits}));
    chained(&node, "ADD", &pod, &portmap);
    chained(&node, "ADD", &pod, &bandwidth);
    let inside = datapath::netns::Netns::open(&pod.netns.path()).unwrap();
    let _listener = inside.run(|| std::net::TcpListener::bind("0.0.0.0:80")).unwrap().unwrap();
    let host = datapath::netns::Netns::open(&node.host.path()).unwrap();
    host.run(|| std::net::TcpStream::connect("10.9.0.10:8080")).unwrap().unwrap();
    let [to_pod, _] = limits_of(&node, &pod);
    assert!(to_pod.contains("tbf") && to_pod.contains("rate 1Mbit"), "{to_pod}");
    assert!(!ruleset(&node).contains("tidepool-ports"), "{}", ruleset(&node));
    let mut check = node.pod_call("CHECK", &pod);
    check.conf("cniVersion", "1.0.0").conf("prevResult", result.clone()).run().silent();
    chained(&node, "DEL", &pod, &bandwidth);
    chained(&node, "DEL", &pod, &portmap);
    node.del(&pod);
}
