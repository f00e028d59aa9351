//! Names resolve as on EKS: by CoreDNS in pods, which they reach by its Service and which asks a resolver beyond the VPC.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tests::image::{DEBIAN, write_dns};
use tests::k8s::{Kubernetes, PATIENCE, Pod};
use tests::process::{Process, eventually};
use tests::story::Story;

use crate::sets::all_succeed;
use crate::workload::{PORT, daemon_set, gone, idle, spec};

const COREDNS: &str = "coredns";
/// The Service with a cluster address, and the headless one, of the same pods.
const SERVICE: &str = "named";
const PEERS: &str = "peers";
const N_PEERS: usize = 3;
/// Pods that ask, one on each node: on the pods' network, and on the host's.
const ASKERS: [&str; 2] = ["asker", "host-asker"];
/// A headless Service with more addresses than an answer by UDP has room for.
const MANY: &str = "many";
const N_MANY: u8 = 100;
/// Pods that ask as they start, and how many do at a time.
const FIRST: (u64, u64) = (20, 10);
/// How glibc is told to ask: by UDP, as it does by itself, and by TCP. A busy machine may answer late.
const TRANSPORTS: [(&str, &str); 2] = [("udp", "timeout:15"), ("tcp", "timeout:15 use-vc")];
/// What the kubelet gives to pods. The last domain is the node's own.
const RESOLV_CONF: &str =
    "search default.svc.cluster.local svc.cluster.local cluster.local ec2.internal
nameserver 172.20.0.10
options ndots:5
";
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/k8s/dns/coredns.yaml");
/// The configuration of the resolver beyond the VPC, and its log.
const OUTSIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/k8s/dns/outside.corefile");
const LOG: &str = "resolver.log";

/// Names inside and outside, and both while CoreDNS is rolled out.
pub(crate) async fn dns(k8s: &Kubernetes, story: &Story) -> Result<()> {
    let peers = peers_are_up(k8s).await?;
    let _outside = install(k8s).await?;
    let askers = askers_are_up(k8s).await?;
    let cluster_ip = cluster_ip(k8s).await?;
    for asker in &askers {
        inside(k8s, asker, &cluster_ip, &peers).await?;
    }
    story.good("pods of both nodes, on either network, resolve Services, a headless one and its pods, by UDP and TCP");
    for asker in &askers {
        outside(k8s, asker).await?;
    }
    from_each_node(k8s, &askers[0]).await?;
    story.good("names outside resolve: the resolver there sees CoreDNS with the public address of either node, by UDP and TCP");
    at_once(k8s).await?;
    story.good(&format!(
        "{} pods have asked as they started: their first question was answered",
        FIRST.0
    ));
    let n_asked = rollout(k8s, &askers).await?;
    story.good(&format!(
        "CoreDNS was rolled out under {n_asked} further questions, and all were answered"
    ));
    remove(k8s).await?;
    k8s.cluster.books_agree(&[]).await
}

/// Pods with names of their own.
async fn peers_are_up(k8s: &Kubernetes) -> Result<Vec<Pod>> {
    for (name, cluster_ip) in [(SERVICE, Value::Null), (PEERS, "None".into())] {
        let ports = json!([{"port": 80, "targetPort": PORT}]);
        k8s.apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"clusterIP": cluster_ip, "selector": {"app": PEERS}, "ports": ports},
        }))
        .await?;
    }
    k8s.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": MANY},
        "spec": {"clusterIP": "None", "ports": [{"port": 80}]},
    }))
    .await?;
    let endpoints = many().into_iter().map(|address| json!({"addresses": [address]}));
    k8s.apply(&json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": MANY, "labels": {"kubernetes.io/service-name": MANY}},
        "endpoints": endpoints.collect::<Vec<_>>(), "ports": [{"port": 80}],
    }))
    .await?;
    let mut spec = spec(PEERS, N_PEERS, idle());
    spec["serviceName"] = PEERS.into();
    let kind = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": PEERS}, "spec": spec});
    k8s.apply(&kind).await?;
    k8s.ready(PEERS, N_PEERS).await
}

/// The addresses behind [`MANY`].
fn many() -> BTreeSet<String> {
    (0..N_MANY).map(|last| format!("10.0.9.{last}")).collect()
}

/// CoreDNS by its manifest, and a resolver beyond the VPC, which ends with what this gives.
async fn install(k8s: &Kubernetes) -> Result<Process> {
    let program = std::env::var_os("TIDEPOOL_COREDNS").map(PathBuf::from);
    let program = program.context("TIDEPOOL_COREDNS names no program: run `make test-k8s`")?;
    let images = k8s.file("dns.tar");
    write_dns(&images, &program)?;
    for node in &k8s.cluster.nodes {
        node.runtime.import(&images).await?;
    }
    let outside = k8s.start_outside(&program, &["-conf", OUTSIDE], LOG)?;
    k8s.kubectl(&["apply", "--filename", MANIFEST]).await?;
    coredns_is_up(k8s).await?;
    Ok(outside)
}

/// CoreDNS is rolled out, with a pod on each node.
async fn coredns_is_up(k8s: &Kubernetes) -> Result<Vec<Pod>> {
    let words = ["--namespace=kube-system", "rollout", "status", "deployment/coredns"];
    k8s.kubectl(&[&words[..], &["--timeout=180s"]].concat()).await?;
    let pods = k8s.ready(COREDNS, k8s.cluster.nodes.len()).await?;
    on_each_node(k8s, &pods)?;
    Ok(pods)
}

async fn askers_are_up(k8s: &Kubernetes) -> Result<Vec<Pod>> {
    let mut all = vec![];
    for app in ASKERS {
        let pod = asking(app, &["/bin/sleep", "infinity"]);
        let mut daemons = daemon_set(app, pod["containers"][0].clone());
        let spec = &mut daemons["spec"]["template"]["spec"];
        spec["volumes"] = pod["volumes"].clone();
        if app == ASKERS[1] {
            spec["hostNetwork"] = true.into();
            spec["dnsPolicy"] = "ClusterFirstWithHostNet".into();
        }
        k8s.apply(&daemons).await?;
        let pods = k8s.ready(app, k8s.cluster.nodes.len()).await?;
        on_each_node(k8s, &pods)?;
        all.extend(pods);
    }
    Ok(all)
}

/// What a pod with the machine's programs has: one container.
fn asking(name: &str, command: &[&str]) -> Value {
    json!({
        "containers": [{
            "name": name, "image": DEBIAN, "imagePullPolicy": "Never", "command": command,
            "volumeMounts": [{"name": "usr", "mountPath": "/usr", "readOnly": true}],
        }],
        "volumes": [{"name": "usr", "hostPath": {"path": "/usr"}}],
    })
}

fn on_each_node(k8s: &Kubernetes, pods: &[Pod]) -> Result<()> {
    let nodes: BTreeSet<_> = pods.iter().map(Pod::node).collect();
    ensure!(nodes.len() == k8s.cluster.nodes.len(), "{pods:?} are on {nodes:?} alone");
    Ok(())
}

async fn cluster_ip(k8s: &Kubernetes) -> Result<String> {
    let service = k8s.api.get(&format!("/api/v1/namespaces/default/services/{SERVICE}")).await?;
    Ok(service["spec"]["clusterIP"].as_str().context("no cluster address")?.to_owned())
}

async fn run(k8s: &Kubernetes, pod: &Pod, script: &str) -> Result<String> {
    k8s.kubectl(&["exec", pod.name(), "--", "bash", "-c", script]).await
}

/// Whole names and such as /etc/resolv.conf completes, and a name that nobody has.
async fn inside(k8s: &Kubernetes, asker: &Pod, cluster_ip: &str, peers: &[Pod]) -> Result<()> {
    let resolv_conf = run(k8s, asker, "cat /etc/resolv.conf").await?;
    ensure!(resolv_conf == RESOLV_CONF, "{} has {resolv_conf}", asker.name());
    let words = |addresses: BTreeSet<String>| Vec::from_iter(addresses).join(" ");
    let all = words(peers.iter().map(|pod| pod.ip().to_owned()).collect());
    let mut expected = vec![
        format!("{SERVICE} {cluster_ip}"),
        format!("{SERVICE}.default {cluster_ip}"),
        format!("{SERVICE}.default.svc.cluster.local. {cluster_ip}"),
        format!("{PEERS} {all}"),
        format!("{MANY} {}", words(many())),
        "nowhere".to_owned(),
    ];
    expected.extend(peers.iter().map(|pod| format!("{}.{PEERS} {}", pod.name(), pod.ip())));
    let names = expected.iter().filter_map(|line| line.split(' ').next());
    let names = names.collect::<Vec<_>>().join(" ");
    expected.push(format!("{cluster_ip} {SERVICE}.default.svc.cluster.local"));
    for (transport, options) in TRANSPORTS {
        let script = format!(
            "export RES_OPTIONS='{options}'
            for name in {names}; do echo $name $(getent ahostsv4 $name | cut -d' ' -f1 | sort -u); done
            echo $(getent hosts {cluster_ip})"
        );
        eventually("answers of CoreDNS", PATIENCE, async || {
            let answers = run(k8s, asker, &script).await?;
            let (name, wanted) = (asker.name(), expected.join("\n"));
            ensure!(
                answers.lines().eq(&expected),
                "{name} by {transport}: {answers}, not {wanted}"
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// A name's address is the one that the resolver outside sees, and the question has come to it as it was asked.
async fn outside(k8s: &Kubernetes, asker: &Pod) -> Result<()> {
    for (transport, options) in TRANSPORTS {
        let name = format!("{transport}.{}.example.com", asker.name());
        let ask = format!("RES_OPTIONS='{options}' getent ahostsv4 {name}");
        let answer = eventually("answer from outside", PATIENCE, || run(k8s, asker, &ask)).await?;
        let seen = answer.split(' ').next().and_then(|word| word.parse().ok());
        let is_public = seen.is_some_and(|seen| k8s.public_addresses().contains(&seen));
        ensure!(is_public, "{name} by {transport} from {}: {answer}", asker.name());
        let (log, question) = (resolver_log(k8s)?, format!("\"A IN {name}. {transport} "));
        ensure!(log.contains(&question), "no {question} in {log}");
    }
    Ok(())
}

/// Questions come out of both nodes: kube-proxy chooses among the pods of CoreDNS.
async fn from_each_node(k8s: &Kubernetes, asker: &Pod) -> Result<()> {
    eventually("questions from both nodes", PATIENCE, async || {
        run(k8s, asker, "getent ahostsv4 $RANDOM.example.com").await?;
        let log = resolver_log(k8s)?;
        for address in k8s.public_addresses() {
            ensure!(log.contains(&format!(" {address}:")), "none from {address}: {log}");
        }
        Ok(())
    })
    .await
}

fn resolver_log(k8s: &Kubernetes) -> Result<String> {
    std::fs::read_to_string(k8s.file(LOG)).context("read the log of the resolver outside")
}

/// New pods ask once, before anything else.
async fn at_once(k8s: &Kubernetes) -> Result<()> {
    let ask = format!("export RES_OPTIONS='timeout:15 attempts:1'; exec getent ahostsv4 {SERVICE}");
    all_succeed(k8s, "first", FIRST, asking("first", &["/bin/bash", "-c", &ask])).await
}

/// Every pod asks all the while, by UDP and TCP. Gives how many questions there were.
async fn rollout(k8s: &Kubernetes, askers: &[Pod]) -> Result<usize> {
    let before = uids(&coredns_is_up(k8s).await?);
    let asking = try_join_all(askers.iter().map(|asker| ask_until_stopped(k8s, asker)));
    let rolling = async {
        let words = ["--namespace=kube-system", "rollout", "restart", "deployment/coredns"];
        k8s.kubectl(&words).await?;
        let after = uids(&coredns_is_up(k8s).await?);
        ensure!(before.is_disjoint(&after), "some pod of CoreDNS was not replaced");
        try_join_all(askers.iter().map(|asker| run(k8s, asker, "touch /tmp/stop"))).await
    };
    let (counts, _) = futures::try_join!(asking, rolling)?;
    ensure!(counts.iter().all(|n| *n > 0), "some pod has asked nothing: {counts:?}");
    Ok(counts.iter().sum())
}

fn uids(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().map(|pod| pod.uid().to_owned()).collect()
}

/// Asks for a name inside, and for one outside that nobody has asked for, until the file /tmp/stop is there.
async fn ask_until_stopped(k8s: &Kubernetes, asker: &Pod) -> Result<usize> {
    let name = asker.name();
    let [(_, udp), (_, tcp)] = TRANSPORTS;
    let script = format!(
        "ask() {{ n=$((n + 1)); getent ahostsv4 $1 >/dev/null || echo \"no answer for $1 by $RES_OPTIONS\"; }}
        n=0
        while [ ! -e /tmp/stop ]; do
            for RES_OPTIONS in '{udp}' '{tcp}'; do
                export RES_OPTIONS
                ask {SERVICE}
                ask $n.during.{name}.example.com
            done
            sleep 0.2
        done
        echo $n"
    );
    let said = run(k8s, asker, &script).await?;
    said.trim().parse().with_context(|| format!("{name}: {said}"))
}

async fn remove(k8s: &Kubernetes) -> Result<()> {
    for app in ASKERS {
        k8s.kubectl(&["delete", "daemonset", app]).await?;
    }
    k8s.kubectl(&["delete", "service", SERVICE, PEERS, MANY]).await?;
    k8s.kubectl(&["delete", "statefulset", PEERS]).await?;
    k8s.kubectl(&["delete", "--filename", MANIFEST]).await?;
    for app in [ASKERS[0], ASKERS[1], PEERS, COREDNS] {
        gone(k8s, app).await?;
    }
    Ok(())
}
