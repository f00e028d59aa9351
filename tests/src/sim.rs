//! `vpc-sim` as a child process, and its admin endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::process::{Process, program};

/// Where instances find EC2 inside the fabric.
pub const EC2_IN_FABRIC: &str = "http://169.254.169.254:8773";

/// The same for instances without IPv4.
pub const EC2_IN_FABRIC_V6: &str = "http://[fd00:ec2::254]:8773";

/// Where instances without IPv4 find the metadata service inside the fabric.
pub const IMDS_IN_FABRIC_V6: &str = "http://[fd00:ec2::254]";

/// The host in the outside.
pub const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10));

/// The same host by IPv6.
pub const OUTSIDE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x10));

/// Where the host in the outside says which address it sees.
pub const OUTSIDE_PORT: u16 = 8774;

/// Where calls are signed for if nobody says so.
const REGION: &str = "us-east-1";

/// The access key of whoever has none: it belongs to the topology's account.
const KEY: &str = "TEST";

/// How long a delayed answer takes: longer than any test, unless the test advances the simulator's clock.
const LONG_MS: u64 = 600_000;

/// A running simulator with its fabric.
#[derive(Debug)]
pub struct Sim {
    process: Process,
    /// Where this machine, outside the fabric, finds EC2 and the admin endpoint: `host:port`.
    address: String,
}

impl Sim {
    /// Starts the simulator on a topology; its instances exist when this returns.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub async fn start(topology: &Path, dir: &Path) -> Result<Self> {
        Self::start_with(topology, dir, &["--fabric"]).await
    }

    /// The same without devices and namespaces, so that it needs no root.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub async fn start_without_fabric(topology: &Path, dir: &Path) -> Result<Self> {
        Self::start_with(topology, dir, &["--imds-listen", "127.0.0.1:0"]).await
    }

    async fn start_with(topology: &Path, dir: &Path, more: &[&str]) -> Result<Self> {
        let ready = dir.join("vpc-sim.ready");
        let mut command = Command::new(program("vpc-sim")?);
        command.arg("--config").arg(topology).args(["--listen", "127.0.0.1:0"]).args(more);
        command.arg("--ready-file").arg(&ready);
        let mut process = Process::start("vpc-sim", &mut command, &dir.join("vpc-sim.log"))?;
        let address = process.wait_until("it is ready", async || address(&ready)).await?;
        Ok(Self { process, address })
    }

    /// Where this machine finds EC2.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The simulator's process id.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn pid(&self) -> Result<u32> {
        self.process.pid()
    }

    /// How often each action was called.
    ///
    /// # Errors
    ///
    /// If the simulator does not answer.
    pub async fn calls(&self) -> Result<BTreeMap<String, u64>> {
        let counters = self.admin(Method::GET, "/_sim/counters", &Value::Null).await?;
        let by_code: BTreeMap<String, BTreeMap<String, u64>> =
            serde_json::from_value(counters).context("read the counters")?;
        Ok(by_code.into_iter().map(|(action, codes)| (action, codes.values().sum())).collect())
    }

    /// Adds a fault rule and gives its id.
    ///
    /// # Errors
    ///
    /// If the simulator does not take it.
    pub async fn fault(&self, rule: Value) -> Result<u64> {
        let added = self.admin(Method::POST, "/_sim/faults", &rule).await?;
        added["id"].as_u64().context("the new fault has no id")
    }

    /// Makes the first `n` calls of `action` from now on fail with `code`.
    ///
    /// # Errors
    ///
    /// If the simulator does not take the rule.
    pub async fn fail(&self, action: &str, n: u64, code: &str) -> Result<u64> {
        let effect = json!({"fail": {"code": code}});
        self.fault(json!({"action": action, "when": {"next": n}, "effect": effect})).await
    }

    /// Drops a fault rule.
    ///
    /// # Errors
    ///
    /// If there is none of that id.
    pub async fn mend(&self, fault: u64) -> Result<()> {
        let path = format!("/_sim/faults/{fault}");
        self.admin(Method::DELETE, &path, &Value::Null).await.map(|_| ())
    }

    /// Makes each call of `action` from now on wait for its answer until [`Self::answer_delayed`].
    ///
    /// # Errors
    ///
    /// If the simulator does not take the rule.
    pub async fn delay(&self, action: &str) -> Result<u64> {
        let effect = json!({"delay": {"ms": LONG_MS}});
        self.fault(json!({"action": action, "when": "each", "effect": effect})).await
    }

    /// Drops the rule `delay`, and answers the calls that it has delayed.
    ///
    /// # Errors
    ///
    /// If there is no such rule.
    pub async fn answer_delayed(&self, delay: u64) -> Result<()> {
        self.mend(delay).await?;
        let clock = json!({"advance_ms": LONG_MS});
        self.admin(Method::POST, "/_sim/clock", &clock).await.map(|_| ())
    }

    /// Changes something that the client does not know of.
    ///
    /// # Errors
    ///
    /// If it cannot be done.
    pub async fn disturb(&self, disturbance: Value) -> Result<()> {
        self.admin(Method::POST, "/_sim/disturb", &disturbance).await.map(|_| ())
    }

    /// Changes the switches that are named.
    ///
    /// # Errors
    ///
    /// If one is not known.
    pub async fn switch(&self, switches: Value) -> Result<()> {
        self.admin(Method::PATCH, "/_sim/switches", &switches).await.map(|_| ())
    }

    /// What the fabric looks like now.
    ///
    /// # Errors
    ///
    /// If the simulator does not answer.
    pub async fn network(&self) -> Result<Value> {
        let mut state = self.admin(Method::GET, "/_sim/state", &Value::Null).await?;
        Ok(state["network"].take())
    }

    /// Shares an IPAM pool with an account, as AWS Resource Access Manager does.
    ///
    /// # Errors
    ///
    /// If there is no such pool.
    pub async fn share(&self, pool: &str, account: &str) -> Result<()> {
        let path = format!("/_sim/shares/{pool}/{account}");
        self.admin(Method::PUT, &path, &Value::Null).await.map(|_| ())
    }

    /// Puts an instance that a call has started into a network namespace, where its interfaces appear.
    ///
    /// # Errors
    ///
    /// If there is no such instance, or if the namespace is taken.
    pub async fn place(&self, instance: &str, netns: &str) -> Result<()> {
        let path = format!("/_sim/netns/{instance}");
        self.admin(Method::PUT, &path, &json!({"netns": netns})).await.map(|_| ())
    }

    /// Calls EC2 as another client of the account, and gives the answer's XML.
    ///
    /// # Errors
    ///
    /// If EC2 refuses; the error carries the answer.
    pub async fn ec2(&self, action: &str, parameters: &[(&str, &str)]) -> Result<String> {
        self.ec2_in(KEY, REGION, action, parameters).await
    }

    /// The same by the account of an access key, in a Region.
    ///
    /// # Errors
    ///
    /// If EC2 refuses; the error carries the answer.
    pub async fn ec2_in(
        &self,
        key: &str,
        region: &str,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Result<String> {
        let mut form = format!("Action={action}&Version=2016-11-15");
        for (name, value) in parameters {
            write!(form, "&{name}={value}")?;
        }
        // The simulator reads the scope, and verifies no signature.
        let scope = format!(
            "AWS4-HMAC-SHA256 Credential={key}/20260101/{region}/ec2/aws4_request, SignedHeaders=host, Signature=0"
        );
        let (status, body) = self.send(Method::POST, "/", &scope, form.into_bytes()).await?;
        let answer = String::from_utf8_lossy(&body).into_owned();
        ensure!(status.is_success(), "{action}: {status}: {answer}");
        Ok(answer)
    }

    /// Every ENI that EC2 has.
    ///
    /// # Errors
    ///
    /// If EC2 refuses.
    pub async fn enis(&self) -> Result<BTreeSet<String>> {
        let answer = self.ec2("DescribeNetworkInterfaces", &[]).await?;
        let ids = answer.split("<networkInterfaceId>").skip(1);
        let ids = ids.filter_map(|rest| Some(rest.split_once('<')?.0.to_owned()));
        Ok(ids.collect())
    }

    async fn admin(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let (status, body) = self.send(method, path, "", body.to_string().into_bytes()).await?;
        ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).context("read the answer as JSON")
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        authorization: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes)> {
        let stream = TcpStream::connect(&self.address).await.context("connect to vpc-sim")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .context("speak HTTP")?;
        let connection = tokio::spawn(connection);
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.address)
            .header("authorization", authorization)
            .body(Full::new(Bytes::from(body)))?;
        let reply = sender.send_request(request).await.with_context(|| format!("send {path}"))?;
        let status = reply.status();
        let body = reply.into_body().collect().await.context("read the answer")?.to_bytes();
        connection.abort();
        Ok((status, body))
    }

    /// Ends the simulator, which takes its namespaces and devices with it.
    ///
    /// # Errors
    ///
    /// If it does not end cleanly.
    pub async fn stop(mut self) -> Result<()> {
        let status = self.process.stop().await?;
        ensure!(status.success(), "vpc-sim ended with {status}");
        Ok(())
    }
}

/// The text of the first element of this name in an answer of EC2.
///
/// # Errors
///
/// If there is none.
pub fn element(xml: &str, name: &str) -> Result<String> {
    let after = xml.split_once(&format!("<{name}>")).map(|(_, rest)| rest);
    let text = after.and_then(|rest| rest.split_once('<')).map(|(text, _)| text.to_owned());
    text.with_context(|| format!("no {name} in {xml}"))
}

fn address(ready: &Path) -> Result<String> {
    let text = std::fs::read_to_string(ready).context("no ready file yet")?;
    let ready: Value = serde_json::from_str(&text).context("read the ready file")?;
    let url = ready["ec2"].as_str().context("the ready file names no EC2 listener")?;
    Ok(url.trim_start_matches("http://").trim_end_matches('/').to_owned())
}
