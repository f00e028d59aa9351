//! The program as a shell sees it: what it prints and how it ends.

#![expect(clippy::unwrap_used, reason = "a panic is the report of a test")]

use std::process::{Command, Output};

use serde_json::json;

fn tidepool(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidepool"));
    command.args(arguments).env_clear();
    command
}

fn check(command: &mut Command, code: i32) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(code), "{command:?}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

/// The JSON of `tidepool plan` with these arguments.
fn plan(arguments: &str) -> serde_json::Value {
    let arguments = format!("plan --output json {arguments}");
    let (stdout, stderr) = check(&mut tidepool(&arguments.split(' ').collect::<Vec<_>>()), 0);
    assert_eq!(stderr, "");
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn plan_as_json_shows_what_a_node_holds() {
    let check = |arguments: &str, expect: serde_json::Value| {
        let plan = plan(arguments);
        for (key, value) in expect.as_object().unwrap() {
            assert_eq!(plan[key], *value, "{key} of {arguments}: {plan}");
        }
    };
    check(
        "--instance-type t3.small --pods 58 --prefix-delegation --warm-prefix-target 1",
        json!({
            "enis": 2, "pods_per_eni": [48, 10], "attached_prefixes": 5,
            "pods_per_prefix": [16, 16, 16, 10, 0], "unused_prefixes": 1,
            "prefixes_per_eni": [3, 2], "unused_ips": 22, "unplaced_pods": 0,
            "unplaced_code": null, "max_pods": 110, "warnings": [],
        }),
    );
    check(
        "--instance-type t3.small --pods 5 --warm-ip-target 2 --minimum-ip-target 5",
        json!({
            "enis": 3, "pods_per_eni": [3, 2, 0], "attached_secondary_ips": 7,
            "ips_per_eni": [3, 3, 1], "unused_ips": 2, "attached_prefixes": null,
            "ec2_calls": {
                "DescribeNetworkInterfaces": 1, "DescribeSubnets": 1, "CreateNetworkInterface": 2,
                "AttachNetworkInterface": 2, "ModifyNetworkInterfaceAttribute": 2,
                "AssignPrivateIpAddresses": 2,
            },
        }),
    );
    let defaults = "--instance-type m5.large --pods 30";
    check(defaults, json!({"enis": 3, "unplaced_pods": 3, "unplaced_code": "ENI_LIMIT"}));
    let fewer = "--instance-type m5.large --pods 30 --max-eni 2 --warm-eni-target 0";
    check(fewer, json!({"enis": 2, "unplaced_pods": 12, "unplaced_code": "ENI_LIMIT"}));
    check(
        "--instance-type m5.large --pods 100 --ipv6",
        json!({
            "mode": "ipv6", "enis": 1, "pods_per_eni": [100], "attached_prefixes": 1,
            "unused_ips": (1_u64 << 48) - 100, "unplaced_pods": 0, "max_pods": 110,
            "ec2_calls": {
                "DescribeNetworkInterfaces": 1, "DescribeSubnets": 1, "AssignIpv6Addresses": 1,
            },
        }),
    );
    let capped = "--instance-type m5.large --pods 9 --warm-ip-target 1 --max-pods 5";
    check(capped, json!({"unplaced_pods": 4, "unplaced_code": "MAX_PODS", "max_pods": 5}));
}

#[test]
fn plan_as_table_shows_what_a_node_holds_and_costs() {
    let arguments = ["plan", "--instance-type", "t2.medium", "--pods", "20"];
    let more = ["--prefix-delegation", "--minimum-ip-target", "40"];
    let (stdout, _) = check(&mut tidepool(&[&arguments[..], &more].concat()), 0);
    let lines: Vec<_> = stdout.lines().map(str::trim).collect();
    for line in [
        "20 pods on t2.medium (3 ENIs, 6 addresses on each, no prefixes), at most 17 pods",
        "mode secondary-ip, 0 free addresses (WARM_IP_TARGET), 40 in all (MINIMUM_IP_TARGET)",
        "ENI  ADDRESSES  PODS  UNUSED ADDRESSES",
        "all  15         15    0",
        "idle addresses: 0; at most 15 on the way from an empty node",
        "EC2 calls from an empty node, pods added one by one: 9, 0.60 for each pod",
        "CreateNetworkInterface           2",
        "warning: MINIMUM_IP_TARGET: 40 is never reached, since this node takes 15 addresses for \
         at most 17 pods; set 15 or less",
    ] {
        assert!(lines.contains(&line), "{line}\n{stdout}");
    }
    assert!(stdout.contains("\n5 pods get no address and fail with ENI_LIMIT: "), "{stdout}");
    assert!(stdout.contains("\nwarning: ENABLE_PREFIX_DELEGATION: this instance type takes no "));
}

#[test]
fn plan_of_ipv6_says_in_words_what_a_node_holds() {
    let arguments = ["plan", "--instance-type", "m5.large", "--pods", "100", "--ipv6"];
    let (stdout, _) = check(&mut tidepool(&arguments), 0);
    for text in [
        "100 pods on m5.large (3 ENIs, 10 addresses on each, prefixes), at most 110 pods\n",
        "mode ipv6, one /80 prefix for all pods\n",
        "The primary ENI holds one IPv6 prefix (/80, 2^48 addresses), whatever the number of pods",
        "pods added one by one: 3, 0.03 for each pod",
    ] {
        assert!(stdout.contains(text), "{text}\n{stdout}");
    }
    assert!(!stdout.contains("idle"), "{stdout}");
}

#[test]
fn plan_refuses_bad_arguments_with_one_line() {
    let check = |arguments: &str, code, expect: &str| {
        let arguments = format!("plan --pods 5 {arguments}");
        let (stdout, stderr) =
            check(&mut tidepool(&arguments.split(' ').collect::<Vec<_>>()), code);
        assert_eq!((&*stdout, stderr.lines().count()), ("", 1), "{stderr}");
        assert!(stderr.starts_with(expect), "{stderr}");
    };
    let unknown = "tidepool: instance type \"t3.smal\" is not in the built-in table; close to it: \
                   t3.small, ";
    check("--instance-type t3.smal", 64, unknown);
    let starving = "tidepool: WARM_PREFIX_TARGET=\"0\": with ENABLE_PREFIX_DELEGATION=true one of ";
    check("--instance-type m5.large --prefix-delegation --warm-prefix-target 0", 78, starving);
    let text = "tidepool: WARM_IP_TARGET=\"many\": expected a whole number from 0 to 4294967295\n";
    check("--instance-type m5.large --warm-ip-target many", 78, text);
}

#[test]
fn plan_for_ipv6_without_prefixes_is_refused() {
    let plan = ["plan", "--ipv6", "--instance-type", "t2.medium", "--pods", "1"];
    let (stdout, stderr) = check(&mut tidepool(&plan), 78);
    assert_eq!(stdout, "");
    assert_eq!(
        stderr,
        "tidepool: ENABLE_IPv6=\"true\": this instance type takes no prefixes, from which pods on \
         IPv6 get their addresses; use one that is built on the Nitro system\n"
    );
}

#[test]
fn simulate_refuses_ipv6() {
    let ipv6 =
        [("ENABLE_IPv6", "true"), ("ENABLE_IPv4", "false"), ("ENABLE_PREFIX_DELEGATION", "true")];
    let (stdout, stderr) = check(tidepool(&["simulate", "--arrivals", "/none"]).envs(ipv6), 78);
    assert_eq!((&*stdout, stderr.lines().count()), ("", 1));
    let start = "tidepool: ENABLE_IPv6: nodes with pods on IPv6 are not";
    assert!(stderr.starts_with(start), "{stderr}");
}

#[test]
fn wrong_command_line_exits_64() {
    check(&mut tidepool(&["stroll"]), 64);
    check(&mut tidepool(&[]), 64);
    let (stdout, _) = check(&mut tidepool(&["--help"]), 0);
    assert!(stdout.contains("Exit codes:"), "{stdout}");
}

#[test]
fn completions_and_manuals_have_every_command() {
    let (script, _) = check(&mut tidepool(&["completions", "bash"]), 0);
    let directory = tempfile::tempdir().unwrap();
    check(&mut tidepool(&["manuals", directory.path().to_str().unwrap()]), 0);
    for command in ["plan", "simulate", "node", "cluster", "ipam", "completions", "manuals"] {
        assert!(script.contains(command), "{command}");
        assert!(directory.path().join(format!("tidepool-{command}.1")).exists(), "{command}");
    }
}
