//! The whole path: containerd starts our plugin, the plugin asks `ipamd`, `ipamd` calls EC2, and
//! pods reach each other over the fabric.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use tests::cluster::{Cluster, Node, Spec};
use tests::containerd::{Sandbox, Wishes};
use tests::process::{PATIENCE, eventually, in_netns, output};
use tokio::process::Child;

/// Waits until the daemon's pool holds exactly `count` pods.
async fn pods_in_pool(node: &Node, count: usize) -> Result<()> {
    eventually("the pool's number of pods", PATIENCE, async || {
        let pods = node.view().await?.pods.len();
        ensure!(pods == count, "{pods} pods in the pool, not {count}");
        Ok(())
    })
    .await
}

/// The node's rules, routes and links, as text.
async fn kernel_state(node: &Node) -> Result<String> {
    let mut text = String::new();
    for words in [["rule"].as_slice(), &["route", "show", "table", "all"], &["-br", "link"]] {
        text += &output(in_netns(&node.netns, "ip").args(words)).await?;
    }
    Ok(text)
}

/// The table of the pod's ENI in the daemon's view.
async fn table_of(node: &Node, pod: &Sandbox) -> Result<u32> {
    let view = node.view().await?;
    let found = view.pods.iter().find_map(|p| p.address.as_ref().filter(|a| a.address == pod.ip));
    Ok(found.with_context(|| format!("{} is not in the pool", pod.ip))?.table)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_reach_each_other_from_every_eni() -> Result<()> {
    let spec = Spec::new("e2e", "t3.small", 2, &[]);
    Cluster::with(spec, async |cluster| {
        let (a, b) = (&cluster.nodes[0], &cluster.nodes[1]);
        let bare = kernel_state(a).await?;

        let on_a = a.run_pods("a", 5).await?;
        let on_b = b.run_pods("b", 5).await?;
        let tables = try_join_all(on_a.iter().map(|pod| table_of(a, pod))).await?;
        ensure!(tables.contains(&254) && tables.iter().any(|t| *t != 254), "tables {tables:?}");
        for from in &on_a {
            for to in &on_b {
                Node::ping(&from.netns, &to.ip).await.context("across nodes")?;
                Node::ping(&to.netns, &from.ip).await.context("back")?;
            }
        }
        Node::ping(&on_a[0].netns, &on_a[4].ip).await.context("on one node")?;
        let node_ns = format!("/run/netns/{}", a.netns);
        for pod in &on_a {
            Node::ping(&node_ns, &pod.ip).await.context("node to pod")?;
            Node::ping(&pod.netns, &a.address.to_string()).await.context("pod to node")?;
        }
        for pod in [&on_a[0], &on_a[4]] {
            let request =
                "printf 'GET /latest/meta-data/ HTTP/1.0\\r\\n\\r\\n' | nc -w 2 169.254.169.254 80";
            let answer = a.runtime.exec(pod, &["/bin/sh", "-c", request]).await?;
            ensure!(answer.contains("401"), "IMDS without a token answers 401, not {answer}");
        }
        let seen = a.runtime.exec(&on_a[0], &["/bin/ip", "route"]).await?;
        ensure!(seen.contains("default via 169.254.1.1 dev eth0"), "{seen}");

        for pod in &on_a {
            a.runtime.stop_sandbox(&pod.id).await.context("stop")?;
            a.runtime.stop_sandbox(&pod.id).await.context("stop again")?;
            a.runtime.remove_sandbox(&pod.id).await.context("remove")?;
        }
        pods_in_pool(a, 0).await?;
        let after = kernel_state(a).await?;
        let left =
            |line: &str| !bare.contains(line) && on_a.iter().any(|pod| line.contains(&pod.ip));
        let leftovers: Vec<_> = after.lines().filter(|line| left(line)).collect();
        ensure!(leftovers.is_empty(), "left of the pods: {leftovers:#?}");
        // A pod's link goes with its namespace, which the kernel removes in the background, or by the daemon's sweep.
        eventually("host without pods' links", PATIENCE, async || {
            let now = kernel_state(a).await?;
            ensure!(!now.contains("eni"), "a host veth is left: {now}");
            Ok(())
        })
        .await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_reach_each_other_over_ipv6() -> Result<()> {
    Cluster::with(Spec::ipv6("e6", "t3.small", 2, &[]), async |cluster| {
        let (a, b) = (&cluster.nodes[0], &cluster.nodes[1]);
        let bare = output(in_netns(&a.netns, "ip").args(["-6", "rule"])).await?;
        let on_a = a.run_pods("a", 3).await?;
        let on_b = b.run_pods("b", 3).await?;
        cluster.books_agree(&[]).await?;
        for (node, pods, others) in [(a, &on_a, &on_b), (b, &on_b, &on_a)] {
            let node_ns = format!("/run/netns/{}", node.netns);
            let address = node.ipv6_address.context("a node without IPv6")?.to_string();
            for pod in pods {
                for other in others {
                    Node::ping(&pod.netns, &other.ip).await.context("across nodes")?;
                }
                Node::ping(&pod.netns, &pods[0].ip).await.context("on one node")?;
                Node::ping(&node_ns, &pod.ip).await.context("node to pod, as probes go")?;
                Node::ping(&pod.netns, &address).await.context("pod to node")?;
            }
            Node::ping(&node_ns, &others[0].ip).await.context("node to another's pod")?;
        }
        let seen = a.runtime.exec(&on_a[0], &["/bin/ip", "-6", "route"]).await?;
        ensure!(seen.contains("default via fe80::1 dev eth0"), "{seen}");
        let status = a.status().await?;
        ensure!(status.contains("mode ipv6") && status.contains(&on_a[0].ip), "{status}");

        let calls = cluster.sim.calls().await?;
        ensure!(calls.get("AssignIpv6Addresses") == Some(&2), "one for each node: {calls:?}");
        for never in ["AssignPrivateIpAddresses", "CreateNetworkInterface"] {
            ensure!(!calls.contains_key(never), "{calls:?}");
        }
        a.remove_pods(&on_a).await?;
        b.remove_pods(&on_b).await?;
        cluster.books_agree(&[]).await?;
        let after = output(in_netns(&a.netns, "ip").args(["-6", "rule"])).await?;
        ensure!(after == bare, "left of the pods: {after}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_takes_110_pods() -> Result<()> {
    let settings = [("ENABLE_PREFIX_DELEGATION", "true")];
    let spec = Spec::new("e110", "m5.large", 1, &settings);
    Cluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        let pods = node.run_pods("p", 110).await?;
        pods_in_pool(node, 110).await?;
        let mut addresses: Vec<_> = pods.iter().map(|pod| pod.ip.clone()).collect();
        addresses.sort();
        addresses.dedup();
        ensure!(addresses.len() == 110, "{} distinct addresses", addresses.len());
        let node_ns = format!("/run/netns/{}", node.netns);
        for pod in &pods {
            Node::ping(&node_ns, &pod.ip).await?;
        }
        node.remove_pods(&pods).await?;
        pods_in_pool(node, 0).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_outlive_the_daemon() -> Result<()> {
    let spec = Spec::new("elive", "t3.small", 1, &[]);
    Cluster::with(spec, async |cluster| {
        let node = &mut cluster.nodes[0];
        let pods = node.run_pods("p", 4).await?;
        let addresses = |view: proto::v1::ViewReply| -> Vec<_> {
            view.pods.into_iter().map(|pod| (pod.attachment, pod.address)).collect()
        };
        let before = addresses(node.view().await?);

        node.stop_ipamd().await.context("SIGTERM")?;
        Node::ping(&pods[0].netns, &pods[3].ip).await.context("without a daemon")?;
        node.start_ipamd().await.context("after SIGTERM")?;
        ensure!(addresses(node.view().await?) == before, "a restart lost an address");

        node.kill_ipamd().await?;
        node.start_ipamd().await.context("after SIGKILL")?;
        ensure!(addresses(node.view().await?) == before, "a crash lost an address");

        node.kill_ipamd().await?;
        node.remove_pods(&pods[..2]).await.context("DEL without a daemon")?;
        node.start_ipamd().await.context("with DELs to catch up on")?;
        pods_in_pool(node, 2).await?;
        node.remove_pods(&pods[2..]).await?;
        pods_in_pool(node, 0).await
    })
    .await
}

/// Serves `pod`'s port 80 with the pod's name, until it is dropped.
fn serve(pod: &Sandbox) -> Result<Child> {
    let mut server = tokio::process::Command::new("nsenter");
    server.arg(format!("--net={}", pod.netns)).args(["--", "busybox", "nc", "-ll", "-p", "80"]);
    server.args(["-e", "/bin/echo", &pod.name]).kill_on_drop(true);
    server.spawn().context("start a server")
}

/// Who answers at `to` (address/port), as seen from a namespace that is given by path.
async fn answer_at(netns: &str, to: &str) -> Result<String> {
    let ask = format!("exec cat < /dev/tcp/{to}");
    let mut command = tokio::process::Command::new("nsenter");
    command.arg(format!("--net={netns}")).args(["--", "timeout", "2", "bash", "-c", &ask]);
    Ok(output(&mut command).await?.trim().to_owned())
}

async fn eventually_answers(netns: &str, to: &str, name: &str) -> Result<()> {
    eventually(&format!("answer of {name} at {to} to {netns}"), PATIENCE, async || {
        let answer = answer_at(netns, to).await?;
        ensure!(answer == name, "{answer:?} answers");
        Ok(())
    })
    .await
}

/// Pods on both ENIs, each by a port of the node: from another node and its pods, from the node itself, and from each other.
async fn host_ports_answer(a: &Node, b: &Node, pods: &[Sandbox], on_b: &Sandbox) -> Result<()> {
    let of_node = |node: &Node| format!("/run/netns/{}", node.netns);
    for (pod, port) in pods.iter().zip(8080_u16..) {
        let at_node = format!("{}/{port}", a.address);
        for client in [&of_node(b), &on_b.netns, &of_node(a), &pods[0].netns, &pod.netns] {
            eventually_answers(client, &at_node, &pod.name).await?;
        }
        eventually_answers(&of_node(a), &format!("127.0.0.1/{port}"), &pod.name).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn host_ports_lead_to_pods_from_everywhere() -> Result<()> {
    ensure!(std::path::Path::new("/bin/busybox").exists(), "busybox is missing: run `make deps`");
    let spec = Spec::new("e2ep", "t3.small", 2, &[("DISABLE_POD_V6", "true")]);
    Cluster::with(spec, async |cluster| {
        let (a, b) = (&cluster.nodes[0], &cluster.nodes[1]);
        let (mut pods, mut servers) = (vec![], vec![]);
        for (index, port) in (0..5).zip(8080_u16..) {
            let wishes = Wishes { host_ports: vec![(port, 80)], ..Wishes::default() };
            let pod = a.runtime.run_with("default", &format!("web-{index}"), &wishes).await?;
            servers.push(serve(&pod)?);
            pods.push(pod);
        }
        let tables = try_join_all(pods.iter().map(|pod| table_of(a, pod))).await?;
        ensure!(tables.contains(&254) && tables.iter().any(|t| *t != 254), "tables {tables:?}");
        let on_b = b.run_pods("b", 1).await?;
        host_ports_answer(a, b, &pods, &on_b[0]).await?;

        let ipv6_off = "cat /proc/sys/net/ipv6/conf/all/disable_ipv6";
        let off = a.runtime.exec(&pods[0], &["/bin/sh", "-c", ipv6_off]).await?;
        ensure!(off.trim() == "1", "DISABLE_POD_V6 has left {off:?}");
        let wishes = Wishes { host_ports: vec![(8080, 80)], ..Wishes::default() };
        let refused = a.runtime.run_with("default", "late", &wishes).await;
        let refused = format!("{:#}", refused.err().context("a port is taken twice")?);
        ensure!(refused.contains("host port tcp *:8080 "), "{refused}");

        output(in_netns(&a.netns, "nft").args(["flush", "ruleset"])).await?;
        host_ports_answer(a, b, &pods, &on_b[0]).await.context("after a flush")?;

        a.remove_pods(&pods).await?;
        let rules = output(in_netns(&a.netns, "nft").args(["list", "ruleset"])).await?;
        ensure!(!rules.contains("comment"), "ports are left: {rules}");
        Ok(())
    })
    .await
}

/// The bytes that have passed a limit, whose rate `tc` prints so.
async fn bytes_within(netns: &str, device: &str, rate: &str) -> Result<u64> {
    let mut tc = tokio::process::Command::new("nsenter");
    tc.arg(format!("--net={netns}")).args(["--", "tc", "-s", "qdisc", "show", "dev", device]);
    let shown = output(&mut tc).await?;
    ensure!(shown.contains("qdisc tbf ") && shown.contains(rate), "{shown}");
    let sent = shown.split("Sent ").nth(1).and_then(|rest| rest.split(' ').next());
    sent.and_then(|bytes| bytes.parse().ok()).with_context(|| shown.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_limit_a_pods_bandwidth() -> Result<()> {
    let spec = Spec::new("e2eb", "t3.small", 1, &[]);
    Cluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        let annotations = vec![
            ("kubernetes.io/ingress-bandwidth", "10M"),
            ("kubernetes.io/egress-bandwidth", "20M"),
        ];
        let wishes = Wishes { annotations, ..Wishes::default() };
        let pod = node.runtime.run_with("default", "limited", &wishes).await?;
        let host = format!("/run/netns/{}", node.netns);
        let links =
            output(in_netns(&node.netns, "ip").args(["-o", "route", "get", &pod.ip])).await?;
        let device = links.split(" dev ").nth(1).and_then(|rest| rest.split(' ').next());
        let device = device.with_context(|| links.clone())?;
        let counted = async || {
            let to_pod = bytes_within(&host, device, "rate 10Mbit ").await?;
            let from_pod = bytes_within(&pod.netns, "eth0", "rate 20Mbit ").await?;
            anyhow::Ok([to_pod, from_pod])
        };
        let before = counted().await?;
        Node::ping(&host, &pod.ip).await?;
        let after = counted().await?;
        ensure!(after.iter().zip(before).all(|(after, before)| *after > before), "{after:?}");
        Ok(())
    })
    .await
}
