//! `vpc-sim` as a child process, and its admin endpoint.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::process::{Process, program};

/// Where instances find EC2 inside the fabric.
pub const EC2_IN_FABRIC: &str = "http://169.254.169.254:8773";

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
        let ready = dir.join("vpc-sim.ready");
        let mut command = Command::new(program("vpc-sim")?);
        command.arg("--config").arg(topology).args(["--listen", "127.0.0.1:0", "--fabric"]);
        command.arg("--ready-file").arg(&ready);
        let mut process = Process::start("vpc-sim", &mut command, &dir.join("vpc-sim.log"))?;
        let address = process.wait_until("it is ready", async || address(&ready)).await?;
        Ok(Self { process, address })
    }

    /// How often each action was called.
    ///
    /// # Errors
    ///
    /// If the simulator does not answer.
    pub async fn calls(&self) -> Result<BTreeMap<String, u64>> {
        let counters = self.get("/_sim/counters").await?;
        let by_code: BTreeMap<String, BTreeMap<String, u64>> =
            serde_json::from_value(counters).context("read the counters")?;
        Ok(by_code.into_iter().map(|(action, codes)| (action, codes.values().sum())).collect())
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let stream = TcpStream::connect(&self.address).await.context("connect to vpc-sim")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .context("speak HTTP")?;
        let connection = tokio::spawn(connection);
        let request = hyper::Request::get(path)
            .header("host", &self.address)
            .body(Full::<Bytes>::default())?;
        let reply = sender.send_request(request).await.with_context(|| format!("GET {path}"))?;
        let status = reply.status();
        let body = reply.into_body().collect().await.context("read the answer")?.to_bytes();
        connection.abort();
        ensure!(status.is_success(), "GET {path}: {status}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).context("read the answer as JSON")
    }

    /// Ends the simulator, which takes its namespaces and devices with it.
    ///
    /// # Errors
    ///
    /// If it does not end cleanly.
    pub async fn stop(self) -> Result<()> {
        let status = self.process.stop().await?;
        ensure!(status.success(), "vpc-sim ended with {status}");
        Ok(())
    }
}

fn address(ready: &Path) -> Result<String> {
    let text = std::fs::read_to_string(ready).context("no ready file yet")?;
    let ready: Value = serde_json::from_str(&text).context("read the ready file")?;
    let url = ready["ec2"].as_str().context("the ready file names no EC2 listener")?;
    Ok(url.trim_start_matches("http://").trim_end_matches('/').to_owned())
}
