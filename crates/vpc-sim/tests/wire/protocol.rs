//! The Query protocol.

use std::collections::BTreeSet;

use futures::FutureExt;

use crate::lab::{Lab, SUBNET, one_node};

const DESCRIBE: &str = "Action=DescribeSubnets&Version=2016-11-15";
const CREATE: &str = "Action=CreateNetworkInterface&Version=2016-11-15";

/// A form, and the status, code and message of its error.
type Case<'a> = (&'a str, u16, &'a str, &'a str);

/// Checks that each case is refused, in the shape that clients expect and with its own request id.
async fn refuses(cases: &[Case<'_>]) {
    let lab = Lab::new(&one_node("")).await;
    let mut request_ids = BTreeSet::new();
    for (form, status, code, message) in cases {
        let reply = lab.ec2(form).await;
        let got = (reply.status, reply.element("Code"), reply.element("Message"));
        assert_eq!(got, (*status, Some(*code), Some(*message)), "{form}: {}", reply.body);
        assert_eq!(reply.header("x-amzn-requestid"), reply.element("RequestID"), "{form}");
        assert_eq!(reply.header("content-type"), Some("text/xml;charset=UTF-8"), "{form}");
        assert!(request_ids.insert(reply.element("RequestID").map(str::to_owned)), "{form}");
    }
}

#[tokio::test]
async fn unknown_action_or_version_is_refused() {
    let unknown = "The action MakeCoffee is not valid for this web service.";
    let no_action = "The request is missing an action or a required parameter.";
    let no_version = "The request must contain the parameter Version";
    let old = "The API version 1999-01-01 is not known; use 2016-11-15.";
    refuses(&[
        ("Action=MakeCoffee&Version=2016-11-15", 400, "InvalidAction", unknown),
        ("Version=2016-11-15", 400, "MissingAction", no_action),
        ("Action=DescribeSubnets", 400, "MissingParameter", no_version),
        ("Action=DescribeSubnets&Version=1999-01-01", 400, "NoSuchVersion", old),
    ])
    .await;
}

#[tokio::test]
async fn missing_or_unknown_parameter_is_refused() {
    let twice = format!("{DESCRIBE}&SubnetId.1={SUBNET}&SubnetId.1={SUBNET}");
    let again = "The parameter SubnetId.1 is given more than once";
    let unknown = format!("{DESCRIBE}&Subnet.1=x");
    let unrecognized = "The parameter Subnet.1 is not recognized";
    let nameless = format!("{DESCRIBE}&Filter.1.Value.1=x");
    let no_name = "The request must contain the parameter Filter.1.Name";
    let no_subnet = "The request must contain the parameter SubnetId";
    refuses(&[
        (&unknown, 400, "UnknownParameter", unrecognized),
        (&twice, 400, "MalformedQueryString", again),
        (&nameless, 400, "MissingParameter", no_name),
        (CREATE, 400, "MissingParameter", no_subnet),
    ])
    .await;
}

#[tokio::test]
async fn malformed_value_is_refused() {
    let (form, code) = (|more: &str| format!("{DESCRIBE}&{more}"), "InvalidParameterValue");
    let address = format!("{CREATE}&SubnetId={SUBNET}&PrivateIpAddress=10.0.2");
    let malformed = "Invalid id: &quot;subnet-1&quot;";
    let number = "Value (x) for parameter MaxResults is invalid. It must be an integer of 32 bits.";
    let boolean = "Value (yes) for parameter DryRun is invalid. It must be true or false.";
    refuses(&[
        (&form("SubnetId.1=subnet-1"), 400, "InvalidSubnetID.Malformed", malformed),
        (&form("MaxResults=x"), 400, code, number),
        (&form("DryRun=yes"), 400, code, boolean),
        (&address, 400, code, "invalid value for parameter address: 10.0.2"),
    ])
    .await;
}

#[tokio::test]
async fn dry_run_is_answered_as_by_ec2() {
    let message = "Request would have succeeded, but DryRun flag is set.";
    refuses(&[(&format!("{DESCRIBE}&DryRun=true"), 412, "DryRunOperation", message)]).await;
}

#[tokio::test]
async fn caller_is_read_from_credential_scope() {
    let lab = Lab::new(&one_node("")).await;
    let check = async |authorization: Option<&str>, status: u16, code: Option<&str>| {
        let headers: Vec<_> =
            authorization.map(|value| ("authorization", value)).into_iter().collect();
        let form = "Action=DescribeVpcs&Version=2016-11-15";
        let reply = lab.send("POST", "/", &headers, form).await.unwrap();
        assert_eq!((reply.status, reply.element("Code")), (status, code), "{authorization:?}");
    };
    let header = |scope: &str| {
        format!(
            "AWS4-HMAC-SHA256 Credential=AKID/1/{scope}/aws4_request, SignedHeaders=a, Signature=0"
        )
    };
    check(Some(&header("us-east-1/ec2")), 200, None).await;
    check(Some(&header("eu-west-1/ec2")), 401, Some("AuthFailure")).await;
    check(Some(&header("us-east-1/s3")), 401, Some("AuthFailure")).await;
    check(Some("Basic dTpw"), 400, Some("IncompleteSignature")).await;
    check(None, 403, Some("MissingAuthenticationToken")).await;
}

#[tokio::test]
async fn anonymous_call_needs_permission() {
    let lab = Lab::new(&one_node("anonymous: true")).await;
    let path = "/?Action=DescribeVpcs&Version=2016-11-15";
    let reply = lab.send("GET", path, &[], "").await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.element("cidrBlock"), Some("10.0.0.0/16"));
    assert_eq!(reply.header("x-amzn-requestid"), reply.element("requestId"));
    let root = r#"<DescribeVpcsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">"#;
    assert!(reply.body.contains(root), "{}", reply.body);
    assert_eq!(lab.send("DELETE", path, &[], "").await.unwrap().status, 405);
    assert_eq!(lab.send("GET", "/elsewhere", &[], "").await.unwrap().status, 404);
}

#[tokio::test]
async fn lost_reply_keeps_effect_of_call() {
    let lab = Lab::new(&one_node("anonymous: true")).await;
    let rule =
        r#"{"action": "CreateNetworkInterface", "when": {"nth": 1}, "effect": "lose_reply"}"#;
    assert_eq!(lab.admin("POST", "faults", rule).await.status, 200);
    let form = format!("Action=CreateNetworkInterface&SubnetId={SUBNET}&Version=2016-11-15");
    let lost = lab.send("POST", "/", &[], &form).await;
    assert_eq!(lost.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(lab.send("POST", "/", &[], &form).await.unwrap().status, 200);
    let described = lab.call("Action=DescribeNetworkInterfaces").await;
    assert_eq!(described.body.matches("<networkInterfaceId>").count(), 3, "primary, lost, seen");
    let calls = lab.admin("GET", "calls?action=CreateNetworkInterface", "").await.json();
    assert_eq!(calls[0]["reply_lost"], true);
    assert_eq!(calls[1]["reply_lost"], false);
}

#[tokio::test]
async fn answer_waits_for_configured_latency() {
    let lab = Lab::new(&one_node("clock: manual")).await;
    let rule = r#"{"action": null, "when": "each", "effect": {"delay": {"ms": 3600000}}}"#;
    assert_eq!(lab.admin("POST", "faults", rule).await.status, 200);
    let mut call = std::pin::pin!(lab.call("Action=DescribeVpcs"));
    // The log shows the call once it took effect; its answer must not be there yet.
    loop {
        tokio::select! {
            reply = &mut call => panic!("answered at once: {reply:?}"),
            calls = lab.admin("GET", "calls", "") => {
                if calls.json().as_array().is_some_and(|calls| !calls.is_empty()) {
                    break;
                }
            }
        }
    }
    lab.admin("POST", "clock", r#"{"advance_ms": 3599999}"#).await;
    assert!(call.as_mut().now_or_never().is_none());
    lab.admin("POST", "clock", r#"{"advance_ms": 1}"#).await;
    assert_eq!(call.await.status, 200);
}
