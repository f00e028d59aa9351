//! The operator's endpoint.

use serde_json::json;

use crate::lab::{Lab, MAC_PATH, NODE, SUBNET, one_node};

#[tokio::test]
async fn calls_are_logged_and_counted() {
    let lab = Lab::new(&one_node("")).await;
    assert_eq!(lab.admin("GET", "calls", "").await.json(), json!([]), "seeding makes no calls");
    lab.call(&format!("Action=DescribeSubnets&SubnetId.1={SUBNET}")).await;
    lab.call("Action=DescribeSubnets&Subnet.1=x").await;
    lab.call("Action=MakeCoffee").await;
    let calls = lab.admin("GET", "calls", "").await.json();
    let calls = calls.as_array().unwrap();
    let field = |name: &str| calls.iter().map(|call| call[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("action"), ["DescribeSubnets", "DescribeSubnets", "MakeCoffee"]);
    assert_eq!(field("error"), [json!(null), json!("UnknownParameter"), json!("InvalidAction")]);
    assert_eq!(field("account"), ["111122223333"; 3]);
    assert_eq!(calls[0]["parameters"], json!({ "SubnetId.1": SUBNET }));
    assert!(calls.iter().all(|call| call["wall"].is_u64() && call["at"].is_u64()), "{calls:?}");
    assert_eq!(
        lab.admin("GET", "counters", "").await.json(),
        json!({
            "DescribeSubnets": { "Success": 1, "UnknownParameter": 1 },
            "MakeCoffee": { "InvalidAction": 1 },
        })
    );
    lab.admin("POST", "reset", "").await;
    assert_eq!(lab.admin("GET", "calls", "").await.json(), json!([]));
    assert_eq!(lab.admin("GET", "counters", "").await.json(), json!({}));
}

#[tokio::test]
async fn calls_name_the_calling_instance() {
    let topology = one_node("iam_role: node-role");
    let lab = Lab::new(&topology).await;
    lab.call("Action=DescribeVpcs").await;
    let key = "ASIA0AAAAAAAAAAAAAAA";
    lab.call_with_key(key, "Action=DescribeSubnets").await;
    let of = async |filter: &str| lab.admin("GET", &format!("calls{filter}"), "").await.json();
    let calls = of("").await;
    assert_eq!((&calls[0]["instance"], &calls[1]["instance"]), (&json!(null), &json!(NODE)));
    let calls = of(&format!("?instance={NODE}")).await;
    assert_eq!(calls.as_array().unwrap().len(), 1);
    assert_eq!(calls[0]["action"], "DescribeSubnets");
    assert_eq!(of(&format!("?instance={NODE}&action=DescribeVpcs")).await, json!([]));
}

#[tokio::test]
async fn fault_rules_are_added_and_removed() {
    let lab = Lab::new(&one_node("")).await;
    let rule = json!({
        "action": "DescribeVpcs",
        "when": { "nth": 2 },
        "effect": { "fail": { "code": "Unavailable" } },
    });
    let id = lab.admin("POST", "faults", &rule.to_string()).await.json()["id"].clone();
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(lab.call("Action=DescribeVpcs").await.status);
    }
    assert_eq!(statuses, [200, 503, 200]);
    let faults = lab.admin("GET", "faults", "").await.json();
    assert_eq!((&faults[0]["id"], &faults[0]["hits"]), (&id, &json!(1)));
    assert_eq!(faults[0]["rule"]["when"], rule["when"]);
    assert_eq!(lab.admin("DELETE", &format!("faults/{id}"), "").await.status, 200);
    let again = lab.admin("DELETE", &format!("faults/{id}"), "").await;
    assert_eq!(again.status, 404);
    assert_eq!(again.json()["error"]["fix"], "see GET /_sim/faults");
}

#[tokio::test]
async fn admin_error_names_place_and_fix() {
    let lab = Lab::new(&one_node("")).await;
    let check = async |method: &str, path: &str, body: &str, what: &str| {
        let reply = lab.admin(method, path, body).await;
        let error = reply.json()["error"].clone();
        assert_eq!(reply.status, 400, "{path} {body}");
        assert!(error["what"].as_str().unwrap().contains(what), "{path} {body}: {error}");
        assert!(error["where"].as_str().is_some_and(|place| !place.is_empty()), "{error}");
        assert!(error["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{error}");
    };
    check("POST", "faults", "{", "EOF").await;
    check("POST", "faults", r#"{"action": "MakeCoffee"}"#, "MakeCoffee").await;
    check("POST", "disturb", r#"{"freeze_imds": {"instance": "x"}}"#, "Malformed").await;
    let unknown = r#"{"detach_eni": {"eni": "eni-00000001"}}"#;
    check("POST", "disturb", unknown, "InvalidNetworkInterfaceID.NotFound").await;
    check("PATCH", "switches", r#"{"throtling": "documented"}"#, "throtling").await;
    check("PUT", "imds/i-1", r#"{"mode": "disabled"}"#, "InvalidInstanceID.Malformed").await;
    check("PUT", "imds/i-0000000a", r#"{"hop_limit": 1}"#, "InvalidInstanceID.NotFound").await;
    check("PUT", &format!("imds/{NODE}"), r#"{"hop_limit": 65}"#, "from 1 to 64").await;
    check("PUT", &format!("imds/{NODE}"), r#"{"limit": 1}"#, "limit").await;
    let nothing = r#"{"when": "each", "effect": {"partial_assign": {"at_most": 0}}}"#;
    check("POST", "faults", nothing, "nonzero").await;
    check("POST", "clock", r#"{"advance": 1}"#, "advance").await;
}

#[tokio::test]
async fn switch_takes_effect_at_once() {
    let lab = Lab::new(&one_node("clock: manual")).await;
    let reply = lab.admin("PATCH", "switches", r#"{"throttling": "documented"}"#).await;
    assert_eq!((reply.status, &reply.json()["throttling"]), (200, &json!("documented")));
    let form =
        format!("Action=CreateSubnetCidrReservation&SubnetId={SUBNET}&ReservationType=prefix");
    let mut codes = Vec::new();
    for block in 1..=6 {
        let reply = lab.call(&format!("{form}&Cidr=10.0.2.{}/28", block * 16)).await;
        codes.push(reply.element("Code").map(str::to_owned));
    }
    assert_eq!(codes[..5], [None, None, None, None, None], "a bucket of five");
    assert_eq!(codes[5].as_deref(), Some("RequestLimitExceeded"));
    lab.admin("PATCH", "switches", r#"{"throttling": "off"}"#).await;
    assert_eq!(lab.call(&format!("{form}&Cidr=10.0.2.112/28")).await.status, 200);
}

#[tokio::test]
async fn frozen_metadata_stays() {
    let lab = Lab::new(&one_node("")).await;
    lab.admin("PUT", &format!("imds/{NODE}"), r#"{"mode": "tokens-optional"}"#).await;
    let mac = lab.imds("GET", MAC_PATH, &[]).await.body;
    let macs = format!("/latest/meta-data/network/interfaces/macs/{mac}");
    let eni = lab.imds("GET", &format!("{macs}/interface-id"), &[]).await.body;
    let n_addresses =
        async || lab.imds("GET", &format!("{macs}/local-ipv4s"), &[]).await.body.lines().count();
    let assign = format!(
        "Action=AssignPrivateIpAddresses&NetworkInterfaceId={eni}&SecondaryPrivateIpAddressCount=1"
    );
    let freeze = json!({ "freeze_imds": { "instance": NODE } }).to_string();
    assert_eq!(lab.admin("POST", "disturb", &freeze).await.status, 200);
    assert_eq!(lab.call(&assign).await.status, 200);
    assert_eq!(n_addresses().await, 1);
    let thaw = json!({ "thaw_imds": { "instance": NODE } }).to_string();
    assert_eq!(lab.admin("POST", "disturb", &thaw).await.status, 200);
    assert_eq!(n_addresses().await, 2);
}

#[tokio::test]
async fn state_shows_network_and_switches() {
    let lab = Lab::new(&one_node("clock: manual")).await;
    let before = lab.admin("GET", "state", "").await.json();
    let instance = &before["network"]["instances"][0];
    assert_eq!(instance["id"], NODE);
    assert_eq!(instance["enis"][0]["primary"], "10.0.2.157");
    assert_eq!(before["clock"]["pace"], "manual");
    lab.admin("POST", "clock", r#"{"advance_ms": 1500}"#).await;
    let after = lab.admin("GET", "state", "").await.json();
    let now = |state: &serde_json::Value| state["clock"]["now_ms"].as_u64().unwrap();
    assert_eq!(now(&after) - now(&before), 1500);
}
