//! etcd, API server, controller manager and scheduler, in an instance of their own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

use super::api::Api;
use super::certificates::Authority;
use super::{CONTROL_PLANE, Family, SERVER};
use crate::process::{Process, in_netns};

/// A running control plane. Dropping it ends it.
#[derive(Debug)]
pub struct ControlPlane {
    /// The program that is all of Kubernetes.
    kubernetes: PathBuf,
    /// The network namespace of its instance.
    netns: String,
    dir: PathBuf,
    family: Family,
    api: Api,
    api_server: Option<Process>,
    /// They end with it.
    others: Vec<Process>,
}

impl ControlPlane {
    /// Starts it with its files in `dir`, and waits until the API server is ready.
    pub(super) async fn start(
        kubernetes: &Path,
        netns: &str,
        dir: &Path,
        authority: &Authority,
        family: Family,
    ) -> Result<Self> {
        issue(authority, dir, family).await?;
        let (kubernetes, netns, dir) = (kubernetes.to_owned(), netns.to_owned(), dir.to_owned());
        let socket = dir.join("proxy.sock");
        let api = Api::new(&socket);
        let (api_server, others) = (None, vec![]);
        let mut this = Self { kubernetes, netns, dir, family, api, api_server, others };
        let etcd = this.spawn("etcd", &[format!("--data-dir={}", this.file("etcd"))])?;
        let mut proxy = this.kubectl();
        proxy.arg("proxy").arg(format!("--unix-socket={}", socket.display()));
        let proxy = Process::start("kubectl proxy", &mut proxy, &this.dir.join("proxy.log"))?;
        this.others.extend([etcd, proxy]);
        this.start_api_server().await?;
        let controllers = [
            format!("--kubeconfig={}", this.file("controllers.conf")),
            format!("--root-ca-file={}", this.file("ca.crt")),
            format!("--service-account-private-key-file={}", this.file("accounts.key")),
            "--use-service-account-credentials=true".to_owned(),
            "--allocate-node-cidrs=false".to_owned(),
            "--leader-elect=false".to_owned(),
        ];
        let scheduler = [
            format!("--kubeconfig={}", this.file("scheduler.conf")),
            "--leader-elect=false".to_owned(),
        ];
        this.others.push(this.spawn("kube-controller-manager", &controllers)?);
        this.others.push(this.spawn("kube-scheduler", &scheduler)?);
        Ok(this)
    }

    /// Starts the API server and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If it does not become ready.
    pub async fn start_api_server(&mut self) -> Result<()> {
        let (certificate, key) = ("api-server.crt", "api-server.key");
        let [services, ..] = self.family.services();
        let flags = [
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            // Both families, whichever is advertised.
            "--bind-address=::".to_owned(),
            format!("--advertise-address={}", self.family.address(CONTROL_PLANE)),
            format!("--service-cluster-ip-range={services}"),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--client-ca-file={}", self.file("ca.crt")),
            format!("--tls-cert-file={}", self.file(certificate)),
            format!("--tls-private-key-file={}", self.file(key)),
            format!("--cert-dir={}", self.file("made")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", self.file("accounts.crt")),
            format!("--service-account-signing-key-file={}", self.file("accounts.key")),
            format!("--kubelet-client-certificate={}", self.file("admin.crt")),
            format!("--kubelet-client-key={}", self.file("admin.key")),
            format!("--kubelet-certificate-authority={}", self.file("ca.crt")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
        ];
        let mut process = self.spawn("kube-apiserver", &flags)?;
        process.wait_until("it is ready", || self.api.is_ready()).await?;
        self.api_server = Some(process);
        Ok(())
    }

    /// Ends the API server as a crash would.
    ///
    /// # Errors
    ///
    /// If it is not running.
    pub async fn kill_api_server(&mut self) -> Result<()> {
        self.api_server.take().context("no API server runs")?.kill().await
    }

    /// The API server as its administrator sees it.
    pub(super) fn api(&self) -> &Api {
        &self.api
    }

    /// `kubectl` of the cluster's administrator.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        let mut command = self.as_administrator(&self.kubernetes);
        command.arg("kubectl");
        command
    }

    /// A program of the cluster's administrator.
    pub(super) fn as_administrator(&self, program: &Path) -> Command {
        let mut command = in_netns(&self.netns, program);
        command.env("KUBECONFIG", self.file("admin.conf"));
        // It keeps what it has asked for here.
        command.env("HOME", &self.dir).kill_on_drop(true);
        command
    }

    /// A program in its instance's network.
    pub(super) fn on_its_instance(&self, program: &str) -> Command {
        in_netns(&self.netns, program)
    }

    fn spawn(&self, program: &str, flags: &[String]) -> Result<Process> {
        let mut command = in_netns(&self.netns, &self.kubernetes);
        command.arg(program).args(flags);
        Process::start(program, &mut command, &self.dir.join(format!("{program}.log")))
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

/// The certificates of the control plane's parts and of its administrator.
async fn issue(authority: &Authority, dir: &Path, family: Family) -> Result<()> {
    let [_, service, _] = family.services();
    let addresses = [Family::Ipv4, Family::Ipv6].map(|family| family.address(CONTROL_PLANE));
    let [ipv4, ipv6] = addresses;
    let serves = format!("IP:{ipv4},IP:{ipv6},IP:{service},DNS:kubernetes.default.svc");
    authority.issue("api-server", "/CN=kube-apiserver", &serves).await?;
    authority.issue("accounts", "/CN=service-accounts", "").await?;
    for (name, subject) in [
        ("admin", "/O=system:masters/CN=admin"),
        ("controllers", "/CN=system:kube-controller-manager"),
        ("scheduler", "/CN=system:kube-scheduler"),
    ] {
        authority.issue(name, subject, "").await?;
        authority.hand_out(name, SERVER, dir)?;
    }
    Ok(())
}
