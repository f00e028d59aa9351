//! `k8s [CHECK...]`, by `make test-k8s`: a real Kubernetes on the simulated VPC, Tidepool installed on it by kubectl, and
//! checks as a user makes them, each whole before the next. `CHECK` chooses some; the installation is always done.
//!
//! Whichever way it ends, nothing of it stays on the machine.

#![expect(clippy::print_stdout, reason = "it says what it checks")]

mod apart;
mod changes;
mod custom;
mod daily;
mod dns;
mod helm;
mod incumbent;
mod install;
mod ipv6;
mod node_object;
mod reach;
mod sets;
mod speed;
mod upgrade;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use tests::k8s::{Kubernetes, Shape, enclosure};
use tests::process::output;
use tests::story::Story;
use tokio::process::Command;

/// Checks that share a cluster, and how it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// This checkout's Tidepool, installed by kubectl on small nodes.
    Plain,
    /// An earlier build on large nodes.
    Earlier,
    /// amazon-vpc-cni-k8s, by its chart.
    Incumbent,
    /// Custom networking from the start.
    Custom,
    /// kube-proxy in its mode `nftables`.
    Nftables,
    /// Pods and Services on IPv6.
    Ipv6,
}

impl Stage {
    const ALL: [Self; 6] =
        [Self::Plain, Self::Earlier, Self::Incumbent, Self::Custom, Self::Nftables, Self::Ipv6];

    const fn shape(self) -> Shape {
        match self {
            Self::Plain | Self::Incumbent | Self::Custom => Shape::SMALL,
            Self::Nftables => Shape::NFTABLES,
            Self::Ipv6 => Shape::IPV6,
            Self::Earlier => Shape::LARGE,
        }
    }

    async fn install(self, k8s: &Kubernetes, story: &Story) -> Result<()> {
        match self {
            Self::Plain | Self::Nftables => install::this(k8s, story).await,
            Self::Custom => custom::install(k8s, story).await,
            Self::Ipv6 => ipv6::install(k8s, story).await,
            Self::Earlier => install::earlier(k8s, story).await,
            Self::Incumbent => incumbent::install(k8s, story).await,
        }
    }
}

/// What can be checked, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Pods,
    Services,
    ScaleDown,
    Settings,
    ConfigMap,
    Restarts,
    Crashes,
    ApiServerAway,
    NodeObject,
    BoundPods,
    Jobs,
    StatefulSet,
    HostNetwork,
    Daily,
    Dns,
    Helm,
    Speed,
    Upgrade,
    Incumbent,
    EniConfig,
    Nftables,
    Ipv6,
}

impl Check {
    const ALL: [Self; 22] = [
        Self::Pods,
        Self::Services,
        Self::ScaleDown,
        Self::Settings,
        Self::ConfigMap,
        Self::Restarts,
        Self::Crashes,
        Self::ApiServerAway,
        Self::NodeObject,
        Self::BoundPods,
        Self::Jobs,
        Self::StatefulSet,
        Self::HostNetwork,
        Self::Daily,
        Self::Dns,
        Self::Helm,
        Self::Speed,
        Self::Upgrade,
        Self::Incumbent,
        Self::EniConfig,
        Self::Nftables,
        Self::Ipv6,
    ];

    const fn stage(self) -> Stage {
        match self {
            Self::Pods
            | Self::Services
            | Self::ScaleDown
            | Self::Settings
            | Self::ConfigMap
            | Self::Restarts
            | Self::Crashes
            | Self::ApiServerAway
            | Self::NodeObject
            | Self::BoundPods
            | Self::Jobs
            | Self::StatefulSet
            | Self::HostNetwork
            | Self::Daily
            | Self::Dns
            | Self::Helm
            | Self::Speed => Stage::Plain,
            Self::Upgrade => Stage::Earlier,
            Self::Incumbent => Stage::Incumbent,
            Self::EniConfig => Stage::Custom,
            Self::Nftables => Stage::Nftables,
            Self::Ipv6 => Stage::Ipv6,
        }
    }

    /// Its name on the command line, and what it shows.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Pods => {
                ("pods", "a Deployment of 20 pods on two nodes: every pod reaches every other")
            }
            Self::Services => {
                ("services", "a Service answers by its cluster address and by node port")
            }
            Self::ScaleDown => (
                "scale-down",
                "the Deployment goes down to 0: nothing is left in the record, in EC2 and in the kernel",
            ),
            Self::Settings => (
                "settings",
                "kubectl set env ds aws-node WARM_IP_TARGET=2, under pods that are pinged",
            ),
            Self::ConfigMap => {
                ("config-map", "a ConfigMap with settings changes, and nothing is restarted")
            }
            Self::Restarts => (
                "restarts",
                "kubectl rollout restart, and delete pod, of aws-node, while pods come and go",
            ),
            Self::Crashes => {
                ("crashes", "kill -9 of ipamd, containerd and kubelet, while pods come and go")
            }
            Self::ApiServerAway => (
                "api-server-away",
                "the API server is away for a minute: a sandbox that dies gets an address again",
            ),
            Self::NodeObject => {
                ("node-object", "taint, condition and annotations of nodes, annotations of pods")
            }
            Self::BoundPods => {
                ("bound-pods", "pods that are bound and cannot start yet: their addresses are here")
            }
            Self::Jobs => ("jobs", "a Job with 60 short pods, 20 at a time"),
            Self::StatefulSet => ("stateful-set", "a StatefulSet, started and updated pod by pod"),
            Self::HostNetwork => {
                ("host-network", "pods on the host's network, and pods with a port of the host")
            }
            Self::Daily => ("daily", "logs, exec and probes"),
            Self::Dns => (
                "dns",
                "CoreDNS serves pods on both nodes, also while it is rolled out, and asks a resolver beyond the VPC",
            ),
            Self::Helm => (
                "helm",
                "helm takes over what kubectl has applied, changes it, uninstalls it and installs it again",
            ),
            Self::Speed => (
                "speed",
                "from a pod's binding until it is ready, with addresses at hand and with none",
            ),
            Self::Upgrade => {
                ("upgrade", "kubectl set image to this build and back, under 200 pods")
            }
            Self::Incumbent => (
                "incumbent",
                "helm upgrade from the chart of amazon-vpc-cni-k8s to ours and back, under pods of both",
            ),
            Self::EniConfig => (
                "eni-config",
                "an ENIConfig names the pods' subnet, and then another one for new ENIs",
            ),
            Self::Ipv6 => ("ipv6", "pods and Services on IPv6"),
            Self::Nftables => {
                ("nftables", "a Service answers beside kube-proxy in its mode nftables")
            }
        }
    }

    async fn run(self, k8s: &mut Kubernetes, story: &Story) -> Result<()> {
        match self {
            Self::Pods => reach::pods(k8s, story).await,
            Self::Services => reach::services(k8s, story).await,
            Self::ScaleDown => reach::scale_down(k8s, story).await,
            Self::Settings => changes::settings(k8s, story).await,
            Self::ConfigMap => changes::config_map(k8s, story).await,
            Self::Restarts => changes::restarts(k8s, story).await,
            Self::Crashes => changes::crashes(k8s, story).await,
            Self::ApiServerAway => apart::api_server_away(k8s, story).await,
            Self::NodeObject => node_object::node_object(k8s, story).await,
            Self::BoundPods => node_object::bound_pods(k8s, story).await,
            Self::Jobs => sets::jobs(k8s, story).await,
            Self::StatefulSet => sets::stateful_set(k8s, story).await,
            Self::HostNetwork => sets::host_network(k8s, story).await,
            Self::Daily => daily::daily(k8s, story).await,
            Self::Dns => dns::dns(k8s, story).await,
            Self::Helm => helm::helm(k8s, story).await,
            Self::Speed => speed::speed(k8s, story).await,
            Self::Upgrade => upgrade::upgrade(k8s, story).await,
            Self::Incumbent => incumbent::incumbent(k8s, story).await,
            Self::EniConfig => custom::eni_config(k8s, story).await,
            Self::Nftables => reach::nftables(k8s, story).await,
            Self::Ipv6 => ipv6::ipv6(k8s, story).await,
        }
    }
}

fn main() -> ExitCode {
    let outcome = match (chosen(), enclosure::name()) {
        (Err(error), _) => Err(error),
        (Ok(checks), None) => run_stages(&checks),
        (Ok(checks), Some(name)) => run(&name, &checks),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("k8s: {error:#}");
        ExitCode::FAILURE
    })
}

/// Each stage is a cluster of its own, and the next one comes up when nothing is left of it. All run, whatever fails.
fn run_stages(checks: &[Check]) -> Result<ExitCode> {
    let mut failed = vec![];
    for stage in Stage::ALL {
        let of_stage = checks.iter().filter(|check| check.stage() == stage);
        let names: Vec<_> = of_stage.map(|check| check.words().0).collect();
        if !names.is_empty() && !enclosure::run_enclosed(&names)?.success() {
            failed.push(names.join(" "));
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
    Ok(ExitCode::SUCCESS)
}

/// The checks that the command line names, or all.
fn chosen() -> Result<Vec<Check>> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let is_known = |name: &&String| Check::ALL.iter().any(|check| check.words().0 == name.as_str());
    let unknown: Vec<_> = names.iter().filter(|name| !is_known(name)).collect();
    let known = Check::ALL.map(|check| check.words().0).join(", ");
    ensure!(unknown.is_empty(), "no check {unknown:?}; there are {known}");
    let is_chosen =
        |check: &Check| names.is_empty() || names.iter().any(|name| name == check.words().0);
    Ok(Check::ALL.into_iter().filter(is_chosen).collect())
}

#[tokio::main]
async fn run(name: &str, checks: &[Check]) -> Result<ExitCode> {
    let kubernetes = std::env::var_os("TIDEPOOL_KUBERNETES")
        .context("TIDEPOOL_KUBERNETES names no program: run `make test-k8s`")?;
    let story = Story::new();
    let stage = checks.first().context("no check")?.stage();
    let shape = stage.shape();
    story.act(&format!(
        "Kubernetes on a VPC 10.0.0.0/16: a control plane and two {}, each in namespaces of its own",
        shape.instance_type
    ));
    let mut k8s = Kubernetes::up(name, &PathBuf::from(kubernetes), shape).await?;
    story.note(&format!("up after {:.1} s", story.elapsed().as_secs_f64()));
    let outcome = check(&mut k8s, &story, stage, checks).await;
    if let Err(error) = &outcome {
        story.bad(&format!("{error:#}"));
        describe(&k8s).await;
        return Ok(ExitCode::FAILURE);
    }
    story.note(&format!(
        "{} checks passed; {:.0} s in all",
        checks.len() + 1,
        story.elapsed().as_secs_f64()
    ));
    Ok(ExitCode::SUCCESS)
}

async fn check(k8s: &mut Kubernetes, story: &Story, stage: Stage, checks: &[Check]) -> Result<()> {
    story.act("it is installed: the nodes become ready");
    stage.install(k8s, story).await.context("install")?;
    for check in checks {
        let (name, shows) = check.words();
        story.act(shows);
        let start = story.elapsed();
        check.run(k8s, story).await.context(name)?;
        story.note(&format!("{name}: {:.0} s", (story.elapsed() - start).as_secs_f64()));
    }
    Ok(())
}

/// What a person asks first when something has failed; and all logs, where they outlive the run.
async fn describe(k8s: &Kubernetes) {
    for words in [
        "get pods --all-namespaces --output wide",
        "get events --all-namespaces --field-selector type=Warning",
        "get nodes",
    ] {
        let words: Vec<_> = words.split(' ').collect();
        let printed = k8s.kubectl(&words).await;
        println!(
            "\n$ kubectl {}\n{}",
            words.join(" "),
            printed.unwrap_or_else(|error| format!("{error:#}"))
        );
    }
    let kept = std::env::temp_dir().join("tidepool-k8s-logs.tar.gz");
    let mut tar = Command::new("sh");
    tar.args(["-c", "find . -name '*.log' -o -name '*.json' | tar -czf \"$0\" -T -"]).arg(&kept);
    match output(tar.current_dir(k8s.file(""))).await {
        Ok(_) => println!("all logs: {}", kept.display()),
        Err(error) => println!("the logs cannot be kept: {error:#}"),
    }
}
