//! What the introspection answers, and when.

use agent::{BindAddress, Introspection, ShownSettings};
use prost::Message as _;
use proto::v1::ViewReply;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use crate::node::{TestNode, until};

async fn node_with_introspection() -> (TestNode, u16) {
    let mut node = TestNode::new();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let shown = ShownSettings { ipamd: json!({"WARM_IP_TARGET": 5}), network: json!({"MTU": 1}) };
    let bind = BindAddress::Loopback(free);
    node.config.introspection = Some(Introspection { bind, settings: watch::channel(shown).1 });
    (node, free.port())
}

/// Status code and body.
async fn get(port: u16, path: &str) -> Option<(u16, Vec<u8>)> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = vec![];
    connection.read_to_end(&mut answer).await.ok()?;
    let end = answer.windows(4).position(|at| at == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    Some((head.split(' ').nth(1)?.parse().ok()?, answer[end + 4..].to_vec()))
}

async fn json_of(port: u16, path: &str) -> Value {
    let (status, body) = until("an answer", || get(port, path)).await;
    assert_eq!(status, 200, "{path}");
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn introspection_answers_with_the_incumbents_shapes() {
    let (node, port) = node_with_introspection().await;
    let daemon = node.start().await;
    let client = node.client().await;
    client.until_warm(1).await;
    let address = client.add("c1").await.unwrap();
    let enis = json_of(port, "/v1/enis").await;
    let card = &enis["0"];
    let (id, eni) = card["ENIs"].as_object().unwrap().iter().next().unwrap();
    let cidr = &eni["AvailableIPv4Cidrs"][format!("{address}/32")];
    let mut assigned = cidr["IPAddresses"][&address].clone();
    let since = assigned["AssignedTime"].take();
    assert!(since.as_str().is_some_and(|text| text.ends_with('Z')), "{since}");
    let expect = json!({
        "Address": address,
        "IPAMKey": {"networkName": "aws-cni", "containerID": "", "ifName": ""},
        "IPAMMetadata": {"k8sPodNamespace": "default", "k8sPodName": "web", "interfacesCount": 1},
        "AssignedTime": null,
        "UnassignedTime": "0001-01-01T00:00:00Z",
    });
    assert_eq!(assigned, expect);
    assert_eq!(cidr["Cidr"], json!({"IP": address, "Mask": "/////w=="}));
    assert_eq!((&cidr["IsPrefix"], &cidr["AddressFamily"]), (&json!(false), &json!("")));
    let mut rest = eni.clone();
    rest["AvailableIPv4Cidrs"].take();
    rest["SubnetID"].take();
    let expect = json!({
        "ID": id, "IsPrimary": true, "IsTrunk": false, "IsEFA": false, "DeviceNumber": 0,
        "AvailableIPv4Cidrs": null, "IPv6Cidrs": {}, "IsExcludedForPodIPs": false,
        "RouteTableID": 254, "SubnetID": null,
    });
    assert_eq!(rest, expect);
    assert_eq!(card["AssignedIPs"], 1);
    assert_eq!(card["TotalIPs"], client.counts().await.total);

    let pods = json!({"web_default_c1": {"IP": address, "DeviceNumber": 0}});
    assert_eq!(json_of(port, "/v1/pods").await, pods);
    assert_eq!(json_of(port, "/v1/ipamd-env-settings").await, json!({"WARM_IP_TARGET": 5}));
    assert_eq!(json_of(port, "/v1/networkutils-env-settings").await, json!({"MTU": 1}));
    assert_eq!(get(port, "/v1/eni-configs").await.unwrap().0, 404);
    for path in ["/", "/v2/anything"] {
        let commands = json_of(port, path).await["AvailableCommands"].clone();
        assert!(commands.as_array().unwrap().contains(&json!("/v1/enis")), "{path}: {commands}");
    }
    let (_, view) = get(port, proto::VIEW_PATH).await.unwrap();
    assert_eq!(ViewReply::decode(&*view).unwrap().pods.len(), 1);
    daemon.stop().await.unwrap();
}

/// A disk that takes no socket leaves somebody to ask.
#[tokio::test]
async fn introspection_answers_without_a_socket() {
    let (mut node, port) = node_with_introspection().await;
    // Nobody can make a directory there.
    node.config.socket = "/proc/tidepool/ipamd.sock".into();
    let daemon = node.launch();
    let (status, view) = until("the view", || get(port, proto::VIEW_PATH)).await;
    assert_eq!(status, 200);
    let view = ViewReply::decode(&*view).unwrap();
    assert_eq!(view.instance_id, "i-0123456789abcdef0");
    assert!(UnixStream::connect(&node.config.socket).await.is_err());
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn introspection_on_a_unix_socket_is_roots() {
    use std::os::unix::fs::PermissionsExt as _;
    let (mut node, _) = node_with_introspection().await;
    let path = node.directory.path().join("introspection.sock");
    node.config.introspection.as_mut().unwrap().bind = BindAddress::Unix(path.clone());
    // A daemon that has ended has left one.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let daemon = node.start().await;
    let answer = until("an answer", || async {
        let mut connection = UnixStream::connect(&path).await.ok()?;
        connection.write_all(b"GET / HTTP/1.0\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    });
    assert!(answer.await.contains("AvailableCommands"));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    daemon.stop().await.unwrap();
}
