//! A simulator on free ports, and a raw HTTP client.

use std::io;
use std::net::SocketAddr;

use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vpc_sim::server::{Server, ServerError, Settings};

pub(crate) const NODE: &str = "i-0aaaaaaaaaaaaaaa1";
pub(crate) const SUBNET: &str = "subnet-0aaaaaaaaaaaaaaa1";
pub(crate) const MAC_PATH: &str = "/latest/meta-data/mac";

/// A topology with one node in one subnet, after the lines in `extra`.
pub(crate) fn one_node(extra: &str) -> String {
    format!(
        "{extra}
region: us-east-1
account: '111122223333'
vpcs:
  - cidrs: [10.0.0.0/16]
    subnets:
      - {{name: a, id: {SUBNET}, az: us-east-1a, cidr: 10.0.2.0/24}}
instances:
  - {{id: {NODE}, type: m5.large, subnet: a, address: 10.0.2.157}}
"
    )
}

pub(crate) struct Lab {
    server: Server,
    _config: NamedTempFile,
}

/// An HTTP answer. Header names are in lower case.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The text of the first element with this name.
    pub(crate) fn element(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.body.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub(crate) async fn start(topology: &str) -> Result<(Server, NamedTempFile), ServerError> {
    let config = NamedTempFile::new().unwrap();
    std::fs::write(config.path(), topology).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let settings = Settings {
        config: config.path().to_owned(),
        listen: any,
        imds_listen: Some(any),
        fabric: false,
    };
    Server::start(&settings).await.map(|server| (server, config))
}

impl Lab {
    pub(crate) async fn new(topology: &str) -> Self {
        let (server, config) = start(topology).await.unwrap();
        Self { server, _config: config }
    }

    /// One POST of an EC2 form, signed for us-east-1.
    pub(crate) async fn ec2(&self, form: &str) -> Reply {
        self.ec2_with_key("AKID", form).await
    }

    async fn ec2_with_key(&self, key_id: &str, form: &str) -> Reply {
        let signature = format!(
            "AWS4-HMAC-SHA256 Credential={key_id}/20261121/us-east-1/ec2/aws4_request, \
             SignedHeaders=host, Signature=00"
        );
        self.send("POST", "/", &[("authorization", &signature)], form).await.unwrap()
    }

    /// As [`Lab::call`], signed with this access key.
    pub(crate) async fn call_with_key(&self, key_id: &str, form: &str) -> Reply {
        self.ec2_with_key(key_id, &format!("{form}&Version=2016-11-15")).await
    }

    /// As [`Lab::ec2`], with the API version of every client.
    pub(crate) async fn call(&self, form: &str) -> Reply {
        self.ec2(&format!("{form}&Version=2016-11-15")).await
    }

    pub(crate) async fn admin(&self, method: &str, path: &str, body: &str) -> Reply {
        self.send(method, &format!("/_sim/{path}"), &[], body).await.unwrap()
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Reply> {
        exchange(&self.server.endpoints().ec2, method, path, headers, body).await
    }

    pub(crate) async fn imds(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let url = &self.server.endpoints().imds[NODE];
        exchange(url, method, path, headers, "").await.unwrap()
    }
}

/// One request on a new connection. `Err` means that no complete answer came.
async fn exchange(
    url: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await?;
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    parse(&answer).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn parse(answer: &str) -> Option<Reply> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Some(Reply { status, headers: lines.filter_map(header).collect(), body: body.to_owned() })
}
