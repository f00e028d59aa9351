//! Invalid topology files: the error names the file, the line and the fix.

use vpc_sim::server::{ServerError, check};

use crate::lab::{NODE, SUBNET, one_node, start};

/// The error for `one_node` with `from` replaced by `to`, without the file's name.
async fn error_of(from: &str, to: &str) -> String {
    let good = one_node("");
    assert!(good.contains(from), "{from}");
    let (error, file) = match start(&good.replacen(from, to, 1)).await {
        Ok(_) => panic!("{to} is taken"),
        Err(ServerError::Topology(error)) => (error.to_string(), error.file),
        Err(error) => panic!("not the topology's: {error}"),
    };
    let prefix = format!("{}:", file.display());
    error.strip_prefix(&prefix).unwrap_or_else(|| panic!("{error} names no file")).to_owned()
}

#[tokio::test]
async fn topology_error_names_line_and_fix() {
    let check = async |from: &str, to: &str, want: &str| {
        let got = error_of(from, to).await;
        assert!(got.starts_with(want), "{to}: {got}");
        assert!(got.contains("; "), "no fix: {got}");
    };
    check("region: us-east-1", "region: [us-east-1", "").await;
    check("account:", "acount:", "3: unknown field `acount`, expected one of").await;
    check("'111122223333'", "'1111'", "3: `1111` is no account id; write 12 digits").await;
    check("region: us-east-1", "region: moon", "2: `moon` is no region; write one").await;
    check("region: us-east-1", "regions: [us-east-1]\nregion: us-east-1", "3: a second region")
        .await;
    let members = |text: &str| format!("organization: {{members: [{text}]}}\naccount:");
    check("account:", &members("'1'"), "3: `1` is no account id; write 12 digits").await;
    check("account:", &members("'111122223333'"), "4: a second account `111122223333`").await;
    let alien = format!("access_keys: {{K: '444455556666'}}\n{}", members(""));
    check("account:", &alien, "3: `444455556666` is no account of the organisation").await;
    check("subnet: a", "subnet: b", "9: there is no subnet `b`; use one of: a").await;
    check("az: us-east-1a", "az: us-east-1z", "7: ").await;
    check("10.0.2.0/24", "10.1.2.0/24", "7: ").await;
    check("10.0.2.0/24", "10.0.2.0", "7: ").await;
    check("cidr: 10.0.2.0/24", "tags: {}", "7: ").await;
    let routed = |routes: &str| format!("cidr: 10.0.2.0/24, routes: {{{routes}}}");
    for (routes, want) in [
        ("0.0.0.0/0: moon", "7: unknown variant `moon`"),
        ("0.0.0.0/0: {nat-gateway: b}", "7: there is no subnet `b`"),
        ("0.0.0.0/0: {nat-gateway: a}", "7: There is no NAT gateway"),
        ("198.51.100.0/24: internet-gateway", "7: Value (198.51.100.0/24)"),
        ("10.9.0.0/16: peering", "7: No VPC other than"),
    ] {
        check("cidr: 10.0.2.0/24", &routed(routes), want).await;
    }
    check("cidr: 10.0.2.0/24", "cidr: 10.0.2.0/24, nat_gateway: 8.8.8.8", "7: Address").await;
    check("subnet: a", "subnet: a, public_address: 10.0.0.1", "9: Address 10.0.0.1").await;
    let long = format!("fabric_netns: {}\nregion:", "x".repeat(60));
    check("region:", &long, "2: network namespace name").await;
    check("type: m5.large", "type: m5.enormous", "9: ").await;
    check("10.0.2.157", "10.0.3.157", "9: ").await;
    check("10.0.2.157", "10.0.2.1", "9: ").await;
    check(NODE, "i-1", "9: ").await;
    check(SUBNET, "subnet-1", "7: ").await;
    check("subnet: a", "subnet: a, netns: a/b", "9: ").await;
    check("subnet: a", "subnet: a, imds: never", "9: unknown variant `never`").await;
    check("subnet: a", "subnet: a, security_groups: [x]", "9: there is no security group `x`")
        .await;
    check(
        "cidr: 10.0.2.0/24",
        "cidr: 10.0.2.0/24, used: [10.0.2.9-10.0.2.8]",
        "7: `10.0.2.9-10.0.2.8` is no address and no range; ",
    )
    .await;
    check(
        "cidr: 10.0.2.0/24",
        "cidr: 10.0.2.0/24, reservations: [{cidr: 10.0.4.0/28, type: prefix}]",
        "7: ",
    )
    .await;
}

#[test]
fn missing_topology_file_is_reported() {
    let error = check("/no/such/file".as_ref()).unwrap_err();
    assert_eq!(
        (error.line, error.fix.as_str()),
        (None, "give the path of a readable topology file")
    );
}

#[test]
fn example_topology_is_valid() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    check(&folder.join("examples/two-nodes.yaml")).unwrap();
}
