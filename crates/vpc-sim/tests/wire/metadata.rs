//! IMDSv2.

use crate::lab::{Lab, MAC_PATH, NODE, Reply, one_node};

const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_PATH: &str = "/latest/api/token";

impl Lab {
    async fn token(&self, ttl: &str) -> String {
        let reply = self.imds("PUT", TOKEN_PATH, &[(TTL, ttl)]).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.header(TTL), Some(ttl), "the Rust client cannot do without");
        reply.body
    }

    async fn get(&self, path: &str, token: &str) -> Reply {
        self.imds("GET", path, &[(TOKEN, token)]).await
    }
}

#[tokio::test]
async fn token_request_is_checked() {
    let lab = Lab::new(&one_node("")).await;
    let check = async |path: &str, headers: &[(&str, &str)], status: u16| {
        assert_eq!(lab.imds("PUT", path, headers).await.status, status, "{path} {headers:?}");
    };
    check(TOKEN_PATH, &[(TTL, "1")], 200).await;
    check(TOKEN_PATH, &[(TTL, "21600")], 200).await;
    check(TOKEN_PATH, &[(TTL, "21601")], 400).await;
    check(TOKEN_PATH, &[(TTL, "0")], 400).await;
    check(TOKEN_PATH, &[(TTL, "soon")], 400).await;
    check(TOKEN_PATH, &[], 400).await;
    check(TOKEN_PATH, &[(TTL, "60"), ("x-forwarded-for", "10.0.0.1")], 403).await;
    check("/2021-01-03/api/token", &[(TTL, "60")], 403).await;
    check("/latest/meta-data/mac", &[(TTL, "60")], 403).await;
}

#[tokio::test]
async fn metadata_needs_valid_token() {
    let lab = Lab::new(&one_node("clock: manual")).await;
    let token = lab.token("60").await;
    let reply = lab.get(MAC_PATH, &token).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/plain")));
    assert_eq!(reply.body.len(), "02:74:b0:72:79:61".len(), "no newline at the end: {reply:?}");
    assert_eq!(lab.imds("GET", MAC_PATH, &[]).await.status, 401);
    assert_eq!(lab.get(MAC_PATH, "rubbish").await.status, 401);
    assert_eq!(lab.get("/latest/meta-data/no-such-key", &token).await.status, 404);
    assert_eq!(lab.get("/latest/meta-data/ipv6", &token).await.status, 404, "not: empty");
    assert_eq!(lab.imds("DELETE", MAC_PATH, &[(TOKEN, &token)]).await.status, 405);
    let head = lab.imds("HEAD", MAC_PATH, &[(TOKEN, &token)]).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    lab.admin("POST", "clock", r#"{"advance_ms": 60000}"#).await;
    assert_eq!(lab.get(MAC_PATH, &token).await.status, 401, "expired");
}

#[tokio::test]
async fn instance_reads_its_own_metadata() {
    let lab = Lab::new(&one_node("")).await;
    let token = lab.token("60").await;
    let text = async |path: &str| {
        let reply = lab.get(path, &token).await;
        assert_eq!(reply.status, 200, "{path}");
        reply.body
    };
    let mac = text(MAC_PATH).await;
    assert_eq!(text("/latest/meta-data/instance-id").await, NODE);
    assert_eq!(text("/latest/meta-data/local-ipv4").await, "10.0.2.157");
    assert_eq!(text("/2021-01-03/meta-data/local-ipv4").await, "10.0.2.157", "dated root");
    let macs = "/latest/meta-data/network/interfaces/macs";
    assert_eq!(text(macs).await, format!("{mac}/"));
    assert_eq!(text(&format!("{macs}/")).await, format!("{mac}/"));
    assert_eq!(text(&format!("{macs}/{mac}/subnet-ipv4-cidr-block")).await, "10.0.2.0/24");
    let document = text("/latest/dynamic/instance-identity/document").await;
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["region"], "us-east-1");
    assert_eq!(document["instanceId"], NODE);
}

#[tokio::test]
async fn imds_mode_allows_v1_or_nothing() {
    let lab = Lab::new(&one_node("")).await;
    let options = format!("imds/{NODE}");
    let check = async |mode: &str, without: u16, with_rubbish: u16| {
        let reply = lab.admin("PUT", &options, &format!(r#"{{"mode": "{mode}"}}"#)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(lab.imds("GET", MAC_PATH, &[]).await.status, without, "{mode}");
        assert_eq!(lab.get(MAC_PATH, "rubbish").await.status, with_rubbish, "{mode}");
    };
    check("tokens-optional", 200, 401).await;
    check("disabled", 403, 403).await;
    check("tokens-required", 401, 401).await;
}

#[tokio::test]
async fn metadata_options_change_one_by_one() {
    let lab = Lab::new(&one_node("")).await;
    let path = format!("imds/{NODE}");
    let check = async |change: &str, options: [&str; 4]| {
        let reply = lab.admin("PUT", &path, change).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let shown = lab.call(&format!("Action=DescribeInstances&InstanceId.1={NODE}")).await;
        let names = ["httpEndpoint", "httpTokens", "httpPutResponseHopLimit", "httpProtocolIpv6"];
        assert_eq!(names.map(|name| shown.element(name).unwrap()), options, "{change}");
        assert!(shown.body.contains("<metadataOptions><state>applied</state>"), "{shown:?}");
    };
    check("{}", ["enabled", "required", "2", "disabled"]).await;
    check(r#"{"hop_limit": 1}"#, ["enabled", "required", "1", "disabled"]).await;
    check(r#"{"mode": "tokens-optional"}"#, ["enabled", "optional", "1", "disabled"]).await;
    check(r#"{"mode": "disabled"}"#, ["disabled", "optional", "1", "disabled"]).await;
    check(r#"{"ipv6": true}"#, ["disabled", "optional", "1", "enabled"]).await;
}

#[tokio::test]
async fn topology_sets_metadata_options() {
    let options = "imds_hop_limit: 1, imds_ipv6: true, type: m5.large";
    let lab = Lab::new(&one_node("").replace("type: m5.large", options)).await;
    let shown = lab.call("Action=DescribeInstances").await;
    assert_eq!(shown.element("httpPutResponseHopLimit"), Some("1"));
    assert_eq!(shown.element("httpProtocolIpv6"), Some("enabled"));
    let token = lab.token("60").await;
    assert_eq!(lab.get(MAC_PATH, &token).await.status, 200, "the instance's own program");
}
