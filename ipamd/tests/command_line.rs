//! The program as a shell sees it: what it prints and how it ends.

#![expect(clippy::unwrap_used, reason = "a panic is the report of a test")]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

fn ipamd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ipamd"));
    // Nothing listens there, so no test reads the metadata of a machine that has some.
    let nowhere = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9");
    command.args(arguments).env_clear().envs([nowhere]);
    command
}

fn check(command: &mut Command, code: i32) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(code), "{command:?}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

#[test]
fn a_bad_setting_is_one_line_and_stops_both_run_and_check() {
    for subcommand in ["run", "check-config"] {
        let (stdout, stderr) = check(ipamd(&[subcommand]).env("WARM_IP_TARGET", "many"), 78);
        assert_eq!(stdout, "");
        assert_eq!(
            stderr,
            "ipamd: WARM_IP_TARGET=\"many\": expected a whole number from 0 to 4294967295\n"
        );
    }
}

#[test]
fn a_log_file_that_cannot_be_written_is_a_bad_setting() {
    let variable = ("AWS_VPC_K8S_CNI_LOG_FILE", "/dev/null/ipamd.log");
    let (_, stderr) = check(ipamd(&["run"]).envs([variable]), 78);
    assert!(stderr.starts_with("ipamd: AWS_VPC_K8S_CNI_LOG_FILE=\"/dev/null/ipamd.log\": "));
    assert_eq!(stderr.lines().count(), 1);
}

#[test]
fn check_config_shows_what_the_settings_amount_to() {
    let command = &mut ipamd(&["check-config", "--instance-type", "m5.large"]);
    let command = command.env("ENABLE_PREFIX_DELEGATION", "true").env("MAX_ENI", "2");
    let (stdout, _) = check(command, 0);
    for line in [
        "instance type    m5.large",
        "limits           3 ENIs, 10 addresses on each, prefixes",
        "mode             prefix",
        "targets          1 free prefixes (WARM_PREFIX_TARGET)",
        "max ENIs         2",
        "max pods         110",
        "holds at most    288 addresses for pods",
        "socket           /var/run/aws-node/ipamd.sock",
    ] {
        assert!(stdout.lines().any(|found| found == line), "{line}\n{stdout}");
    }
}

#[test]
fn prefixes_on_an_instance_without_them_are_a_warning() {
    let command = &mut ipamd(&["check-config", "--instance-type", "t2.medium"]);
    let (stdout, _) = check(command.env("ENABLE_PREFIX_DELEGATION", "true"), 0);
    assert!(stdout.contains("mode             secondary-ip\n"), "{stdout}");
    assert!(stdout.contains("targets          free addresses worth 1 ENIs"), "{stdout}");
    assert!(stdout.contains("takes no prefixes"), "{stdout}");
}

#[test]
fn check_config_does_without_knowing_the_node() {
    let (stdout, _) = check(&mut ipamd(&["check-config"]), 0);
    assert!(stdout.contains("instance type    unknown: read "), "{stdout}");
}

#[test]
fn status_without_a_daemon_is_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ipamd.sock");
    let path = socket.to_str().unwrap();
    let (stdout, stderr) = check(&mut ipamd(&["status", "--socket", path]), 2);
    assert_eq!(stdout, "");
    assert!(stderr.starts_with(&format!("ipamd: no ipamd answers on {path}: ")), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
    check(ipamd(&["status", "--output", "json"]).env("TIDEPOOL_SOCKET", path), 2);
}

#[test]
fn a_wrong_command_line_has_a_code_of_its_own() {
    check(&mut ipamd(&["stroll"]), 64);
    check(&mut ipamd(&[]), 64);
    let (stdout, _) = check(&mut ipamd(&["--help"]), 0);
    assert!(stdout.contains("Exit codes:"), "{stdout}");
}

#[test]
fn a_node_that_does_not_know_itself_waits_and_stops_when_told() {
    let mut command = ipamd(&["run"]);
    command.env("AWS_VPC_K8S_CNI_LOG_FILE", "stdout").stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.find(|line| line.as_ref().unwrap().contains("start waits")).unwrap().unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["level"], &line["what"]), (&"WARN".into(), &"the node's facts".into()));
    assert!(line["fault"].as_str().unwrap().contains("instance metadata service"), "{line}");
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
