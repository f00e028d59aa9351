//! EC2 and STS with answers from memory: peerings, addresses and roles, which the simulator does not serve, and a pool
//! whose rule is broken.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The answer to each action. An action that is not here gets an empty answer.
const ANSWERS: &[(&str, &str)] = &[
    (
        "DescribeVpcs",
        "<vpcSet>
          <item><vpcId>vpc-a</vpcId><ownerId>111122223333</ownerId><cidrBlock>10.0.0.0/16</cidrBlock></item>
          <item><vpcId>vpc-b</vpcId><ownerId>111122223333</ownerId><cidrBlock>10.0.0.0/17</cidrBlock></item>
        </vpcSet>",
    ),
    (
        "DescribeVpcPeeringConnections",
        "<vpcPeeringConnectionSet>
          <item><vpcPeeringConnectionId>pcx-1</vpcPeeringConnectionId>
            <requesterVpcInfo><vpcId>vpc-a</vpcId></requesterVpcInfo>
            <accepterVpcInfo><vpcId>vpc-hub</vpcId></accepterVpcInfo></item>
          <item><vpcPeeringConnectionId>pcx-2</vpcPeeringConnectionId>
            <requesterVpcInfo><vpcId>vpc-hub</vpcId></requesterVpcInfo>
            <accepterVpcInfo><vpcId>vpc-b</vpcId></accepterVpcInfo></item>
        </vpcPeeringConnectionSet>",
    ),
    (
        "DescribeAddresses",
        "<addressesSet>
          <item><publicIp>203.0.113.7</publicIp><allocationId>eipalloc-1</allocationId></item>
          <item><publicIp>203.0.113.8</publicIp><networkInterfaceId>eni-1</networkInterfaceId></item>
        </addressesSet>",
    ),
    (
        "DescribeIpamPools",
        "<ipamPoolSet><item>
          <ipamPoolId>ipam-pool-1</ipamPoolId><ownerId>111122223333</ownerId><ipamRegion>us-east-1</ipamRegion>
          <ipamScopeArn>arn:aws:ec2::111122223333:ipam-scope/ipam-scope-1</ipamScopeArn><locale>us-east-1</locale>
          <allocationMinNetmaskLength>20</allocationMinNetmaskLength>
        </item></ipamPoolSet>",
    ),
    (
        "GetIpamPoolCidrs",
        "<ipamPoolCidrSet>
          <item><cidr>10.0.0.0/15</cidr><state>provisioned</state></item>
          <item><cidr>10.8.0.0/15</cidr><state>deprovisioned</state></item>
        </ipamPoolCidrSet>",
    ),
    (
        "GetIpamPoolAllocations",
        "<ipamPoolAllocationSet><item>
          <cidr>10.0.0.0/16</cidr><resourceId>vpc-a</resourceId><resourceType>vpc</resourceType>
          <resourceRegion>us-east-1</resourceRegion>
        </item></ipamPoolAllocationSet>",
    ),
    (
        "AssumeRole",
        "<AssumeRoleResult><Credentials><AccessKeyId>ASSUMED</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
          <SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult>",
    ),
];

/// A server that runs until the test ends.
#[derive(Debug)]
pub(crate) struct CannedAws {
    pub(crate) url: String,
    /// Of each request the action and the access key.
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl CannedAws {
    /// Starts one that denies these actions.
    pub(crate) async fn start(denied: &'static [&'static str]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let asked = Arc::new(Mutex::new(vec![]));
        let noted = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let noted = noted.clone();
                // A client that goes away early shows in the test by what it prints.
                tokio::spawn(async move { answer(stream, denied, &noted).await });
            }
        });
        Ok(Self { url, asked })
    }

    /// The access keys by which an action was called.
    pub(crate) fn keys_of(&self, action: &str) -> Vec<String> {
        let asked = self.asked.lock().expect("no holder panics");
        asked.iter().filter(|(made, _)| made == action).map(|(_, key)| key.clone()).collect()
    }
}

async fn answer(
    mut stream: TcpStream,
    denied: &[&str],
    asked: &Mutex<Vec<(String, String)>>,
) -> Result<()> {
    let mut request = String::new();
    loop {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).await?;
        request.push_str(std::str::from_utf8(&buffer[..n])?);
        if n == 0 || is_whole(&request) {
            break;
        }
    }
    let between = |before: &str, end: char| {
        let rest = request.split_once(before).map(|(_, rest)| rest).unwrap_or_default();
        rest.split(end).next().unwrap_or_default().to_owned()
    };
    let (action, key) = (between("Action=", '&'), between("Credential=", '/'));
    let content = ANSWERS.iter().find(|(of, _)| *of == action).map(|(_, text)| *text);
    let content = content.unwrap_or_default();
    asked.lock().expect("no holder panics").push((action.clone(), key));
    let (status, body) = if denied.contains(&action.as_str()) {
        let error = "<Code>UnauthorizedOperation</Code><Message>no</Message>";
        ("403 Forbidden", format!("<Response><Errors><Error>{error}</Error></Errors></Response>"))
    } else {
        ("200 OK", format!("<{action}Response>{content}</{action}Response>"))
    };
    let n = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {n}\r\nconnection: close\r\n\r\n");
    stream.write_all((head + &body).as_bytes()).await.context("answer")
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = lengths.next().and_then(|(_, text)| text.parse().ok()).unwrap_or(0);
    body.len() >= length
}
