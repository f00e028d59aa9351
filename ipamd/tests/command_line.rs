//! The program as a shell sees it: what it prints and how it ends.

#![expect(clippy::unwrap_used, reason = "a panic is the report of a test")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

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
fn bad_setting_stops_run_and_check_with_one_line() {
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
fn log_file_that_cannot_be_written_is_a_bad_setting() {
    let variable = ("AWS_VPC_K8S_CNI_LOG_FILE", "/dev/null/ipamd.log");
    let (_, stderr) = check(ipamd(&["run"]).envs([variable]), 78);
    assert!(stderr.starts_with("ipamd: AWS_VPC_K8S_CNI_LOG_FILE=\"/dev/null/ipamd.log\": "));
    assert_eq!(stderr.lines().count(), 1);
}

#[test]
fn check_config_shows_the_policy() {
    let command = &mut ipamd(&["check-config", "--instance-type", "m5.large"]);
    let command = command.env("ENABLE_PREFIX_DELEGATION", "true").env("MAX_ENI", "2");
    let (stdout, _) = check(command, 0);
    for line in [
        "instance type    m5.large",
        "limits           3 ENIs, 10 addresses on each, prefixes",
        "limits from      built-in table",
        "mode             prefix",
        "targets          1 free prefixes (WARM_PREFIX_TARGET)",
        "max ENIs         2",
        "max pods         110",
        "holds at most    288 addresses for pods",
    ] {
        assert!(stdout.lines().any(|found| found == line), "{line}\n{stdout}");
    }
}

/// The lines of a table, with one space between two columns.
fn squeezed(stdout: &str) -> Vec<String> {
    stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn check_config_shows_where_each_setting_comes_from() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("env");
    std::fs::write(&file, "# Ours.\nWARM_IP_TARGET=\"7\"\n").unwrap();
    let command = &mut ipamd(&["check-config", "--instance-type", "m5.large"]);
    command.env("TIDEPOOL_ENV_FILE", &file);
    command.envs([("WARM_IP_TARGET", "5"), ("MAX_ENI", "2"), ("ENABLE_POD_ENI", "false")]);
    let (stdout, _) = check(command, 0);
    let lines = squeezed(&stdout);
    for line in [
        "SETTING VALUE FROM",
        "WARM_IP_TARGET 7 file",
        "MAX_ENI 2 environment",
        "MINIMUM_IP_TARGET 0 default",
        "CLUSTER_NAME - default",
        "TIDEPOOL_SOCKET /var/run/aws-node/ipamd.sock default",
        "ENABLE_POD_ENI false environment",
        "targets 7 free addresses (WARM_IP_TARGET), 0 in all (MINIMUM_IP_TARGET)",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line}\n{stdout}");
    }
    assert!(!stdout.contains("ENABLE_MULTI_NIC"), "{stdout}");
}

#[test]
fn bad_env_file_stops_run_and_check_with_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("env");
    std::fs::write(&file, "WARM_IP_TARGET=5\nWARM_IP_TARGE=5\n").unwrap();
    for subcommand in ["run", "check-config", "status"] {
        let (_, stderr) = check(ipamd(&[subcommand]).env("TIDEPOOL_ENV_FILE", &file), 78);
        let fault = "\"WARM_IP_TARGE\" is no setting of ipamd; is WARM_IP_TARGET meant?";
        assert_eq!(stderr, format!("ipamd: line 2 of {}: {fault}\n", file.display()));
    }
    let missing = directory.path().join("none");
    let (_, stderr) = check(ipamd(&["run"]).env("TIDEPOOL_ENV_FILE", &missing), 78);
    let start = format!("ipamd: read {}, which TIDEPOOL_ENV_FILE names: ", missing.display());
    assert!(stderr.starts_with(&start) && stderr.lines().count() == 1, "{stderr}");
    let (_, stderr) = check(ipamd(&["run"]).env("TIDEPOOL_ENV_FILE", "env"), 78);
    assert_eq!(stderr, "ipamd: TIDEPOOL_ENV_FILE=\"env\": expected an absolute path\n");
}

#[test]
fn prefixes_on_an_instance_without_them_are_a_warning() {
    let command = &mut ipamd(&["check-config", "--instance-type", "t2.medium"]);
    let (stdout, _) = check(command.env("ENABLE_PREFIX_DELEGATION", "true"), 0);
    assert!(stdout.contains("mode             secondary-ip\n"), "{stdout}");
    assert!(stdout.contains("targets          free addresses worth 1 ENIs"), "{stdout}");
    assert!(stdout.contains("takes no prefixes"), "{stdout}");
}

const IPV6: [(&str, &str); 3] =
    [("ENABLE_IPv6", "true"), ("ENABLE_IPv4", "false"), ("ENABLE_PREFIX_DELEGATION", "true")];

#[test]
fn check_config_shows_the_policy_of_ipv6() {
    let command = &mut ipamd(&["check-config", "--instance-type", "m5.large"]);
    let (stdout, _) = check(command.envs(IPV6).env("WARM_IP_TARGET", "5"), 0);
    for line in [
        "mode             ipv6",
        "targets          one /80 prefix for all pods",
        "max ENIs         1",
        "max pods         110",
        "holds at most    one /80 prefix, that is 2^48 addresses, for pods",
        "warning          WARM_IP_TARGET: 5 has no effect with ENABLE_IPv6=true, where one prefix is \
         enough; leave it out",
    ] {
        assert!(stdout.lines().any(|found| found == line), "{line}\n{stdout}");
    }
}

#[test]
fn ipv6_on_an_instance_without_prefixes_is_refused() {
    let command = &mut ipamd(&["check-config", "--instance-type", "t2.medium"]);
    let (stdout, stderr) = check(command.envs(IPV6), 78);
    assert_eq!(stdout, "");
    assert_eq!(
        stderr,
        "ipamd: ENABLE_IPv6=\"true\": this instance type takes no prefixes, from which pods on \
         IPv6 get their addresses; use one that is built on the Nitro system\n"
    );
}

#[test]
fn check_config_shows_the_limits_kept_by_a_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let limits = json!({"enis": 5, "addresses_per_eni": 7, "prefixes": false});
    let kept = json!({"version": 1, "instance_type": "m99.large", "limits": limits});
    agent::checked_file::write(&directory.path().join("tidepool-limits.json"), &kept).unwrap();
    let command = &mut ipamd(&["check-config", "--instance-type", "m99.large"]);
    let store = ("AWS_VPC_K8S_CNI_BACKING_STORE", directory.path().join("ipam.json"));
    let (stdout, _) = check(command.envs([store]), 0);
    assert!(stdout.contains("limits           5 ENIs, 7 addresses on each, no prefixes\n"));
    assert!(stdout.contains("limits from      EC2, at an earlier start\n"), "{stdout}");
}

#[test]
fn check_config_works_without_the_instance_type() {
    let targets = [("WARM_ENI_TARGET", "2"), ("WARM_IP_TARGET", "5")];
    let (stdout, _) = check(ipamd(&["check-config"]).envs(targets), 0);
    assert!(stdout.contains("instance type    unknown: read "), "{stdout}");
    assert!(stdout.contains("warning          WARM_ENI_TARGET: 2 has no effect "), "{stdout}");
    let (stdout, _) = check(&mut ipamd(&["check-config", "--instance-type", "m5.enormous"]), 0);
    assert!(stdout.contains("m5.enormous, unknown to the built-in table\n"), "{stdout}");
    assert!(!stdout.contains("_TARGET: "), "{stdout}");
}

#[test]
fn status_without_a_daemon_is_one_line() {
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
fn plan_and_simulate_name_their_new_command() {
    for command in ["plan", "simulate"] {
        let expect =
            format!("ipamd: ipamd has no command {command} any more; use `tidepool {command}`\n");
        for arguments in [&[][..], &["--help"], &["--pods", "5", "x"], &["--", "-h"]] {
            let (stdout, stderr) = check(&mut ipamd(&[&[command], arguments].concat()), 64);
            assert_eq!((&*stdout, &*stderr), ("", &*expect), "{arguments:?}");
        }
    }
    let (help, _) = check(&mut ipamd(&["--help"]), 0);
    assert!(!help.contains("simulate"), "{help}");
    let (help, _) = check(&mut ipamd(&["run", "--help"]), 0);
    assert!(help.contains("  WARM_IP_TARGET* [0]\n"), "{help}");
}

#[test]
fn wrong_command_line_exits_64() {
    check(&mut ipamd(&["stroll"]), 64);
    check(&mut ipamd(&[]), 64);
    let (stdout, _) = check(&mut ipamd(&["--help"]), 0);
    assert!(stdout.contains("Exit codes:"), "{stdout}");
}

#[test]
fn run_without_metadata_waits_until_sigterm() {
    let mut command = ipamd(&["run"]);
    command.env("AWS_VPC_K8S_CNI_LOG_FILE", "stdout").stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let waits = |line: &str| line.contains("no answer from the metadata service");
    let line = lines.find(|line| waits(line.as_ref().unwrap())).unwrap().unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["level"], &line["what"]), (&json!("WARN"), &json!("who this is")));
    assert!(line["fault"].as_str().unwrap().contains("instance metadata service"), "{line}");
    let kill = |signal: &str| Command::new("kill").args([signal, &child.id().to_string()]).status();
    // It has no policy to change yet, and goes on to wait.
    kill("-HUP").unwrap();
    assert!(lines.any(|line| waits(&line.unwrap())));
    kill("-TERM").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A daemon that knows who it is by what an earlier start has kept, so that no service is needed.
fn ipamd_of(directory: &Path) -> Command {
    let facts = json!({
        "instance": "i-0123456789abcdef0", "instance_type": "m5.large", "region": "us-east-1",
        "availability_zone": "us-east-1a", "vpc": "vpc-0", "primary_mac": "02:00:00:00:00:01",
    });
    let kept = json!({"version": 2, "boot": agent::boot_id().unwrap(), "facts": facts});
    agent::checked_file::write(&directory.join("tidepool-node.json"), &kept).unwrap();
    let mut command = ipamd(&["run"]);
    command.env("AWS_VPC_K8S_CNI_BACKING_STORE", directory.join("ipam.json"));
    command.env("TIDEPOOL_SOCKET", directory.join("ipamd.sock"));
    command.env("AWS_VPC_K8S_CNI_LOG_FILE", "stdout").stdout(Stdio::piped());
    command
}

#[test]
fn run_with_a_bad_ca_bundle_ends_with_a_code_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = ipamd_of(directory.path());
    let (stdout, stderr) = check(command.env("AWS_CA_BUNDLE", "/nonexistent.pem"), 72);
    let expect =
        "ipamd: the client for EC2 cannot be set up: read the certificates in /nonexistent.pem: ";
    assert!(stderr.starts_with(expect) && stderr.lines().count() == 1, "{stderr}");
    assert!(stdout.contains("the client for EC2 cannot be set up"), "{stdout}");
}

#[test]
fn run_without_ca_certificates_trusts_amazons() {
    let directory = tempfile::tempdir().unwrap();
    // The daemon gets no further than the lock, so it changes nothing on this machine.
    let _lock = locked(directory.path());
    let mut command = ipamd_of(directory.path());
    command.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/nonexistent");
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("trusted by the roots of Amazon")));
    assert!(lines.any(|line| line.contains("another ipamd is running")));
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The lock of a daemon's state, held as another daemon does.
fn locked(directory: &Path) -> File {
    let mut options = File::options();
    let file = options.create(true).append(true).mode(0o600).open(directory.join("tidepool.lock"));
    let file = file.unwrap();
    file.lock().unwrap();
    file
}

/// A rollout with `maxSurge`: the old pod's daemon serves, and the new pod's waits. A container is a PID namespace and
/// a mount namespace. Rollouts go on when the new pod is ready.
#[test]
fn ready_in_a_new_container_is_about_the_daemon_there() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ipamd.sock");
    let _lock = locked(directory.path());
    let _serves = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let unshare = |program: Command| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]);
        unshare.arg(program.get_program()).args(program.get_args()).env_clear();
        unshare.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        unshare
    };
    let ready = || ipamd(&["ready", "--socket", socket.to_str().unwrap()]);
    let (_, stderr) = check(&mut unshare(ready()), 4);
    assert!(stderr.starts_with("ipamd: ANOTHER_CONTAINER: "), "{stderr}");

    let mut waiting = unshare(ipamd_of(directory.path())).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(waiting.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("another ipamd is running")));
    let beside = directory.path().join("ipamd.sock.waiting");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !beside.exists() {
        assert!(Instant::now() < deadline, "no {}", beside.display());
        std::thread::yield_now();
    }
    let child = waiting.id();
    let inside = std::fs::read_to_string(format!("/proc/{child}/task/{child}/children")).unwrap();
    let mut probe = Command::new("nsenter");
    probe.args(["--target", inside.trim(), "--pid", "--mount"]);
    let (program, arguments) = (ready().get_program().to_owned(), ready());
    let (_, stderr) = check(probe.arg(program).args(arguments.get_args()), 0);
    assert!(stderr.starts_with("ipamd: this daemon waits, and takes over"), "{stderr}");
    // In a third container nobody waits.
    check(&mut unshare(ready()), 4);
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}

#[test]
fn ready_without_a_daemon_exits_2() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ipamd.sock");
    for subcommand in ["ready", "status"] {
        let command = &mut ipamd(&[subcommand, "--socket", socket.to_str().unwrap()]);
        let (_, stderr) = check(command, 2);
        assert!(stderr.starts_with("ipamd: no ipamd answers on "), "{stderr}");
    }
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::os::unix::fs::chown(&socket, Some(65_534), None).unwrap();
    let (_, stderr) = check(&mut ipamd(&["ready", "--socket", socket.to_str().unwrap()]), 2);
    assert!(stderr.contains("belongs to uid 65534"), "{stderr}");
}

/// The kubelet would restart a daemon for ever that waits for the metadata service or for EC2.
#[test]
fn alive_fails_only_for_a_daemon_that_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ipamd.sock");
    let mut alive = ipamd(&["alive"]);
    alive.env("TIDEPOOL_SOCKET", &socket);
    check(&mut alive, 0);
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let (_, stderr) = check(&mut alive, 2);
    assert!(stderr.contains("no answer within 5 s"), "{stderr}");
    // It has died: the socket is there, and nobody listens.
    drop(listener);
    check(&mut alive, 0);
}

#[test]
fn health_probe_by_its_own_name_asks_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let probe = directory.path().join("grpc-health-probe");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ipamd"), &probe).unwrap();
    let mut command = Command::new(&probe);
    let (_, stderr) = check(command.arg("-addr=unix:///nonexistent/ipamd.sock"), 2);
    assert!(stderr.starts_with("grpc-health-probe: /nonexistent/ipamd.sock: "), "{stderr}");
    let (_, stderr) = check(&mut Command::new(&probe), 1);
    assert_eq!(stderr, "grpc-health-probe: -addr is missing\n");
}

/// With the directories of a node below `directory`.
fn of_node(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = ipamd(arguments);
    command
        .env("HOST_CNI_BIN_PATH", directory.join("bin"))
        .env("HOST_CNI_CONFDIR_PATH", directory.join("net.d"))
        .env("AWS_VPC_K8S_CNI_BACKING_STORE", directory.join("ipam.json"))
        .env("TIDEPOOL_SOCKET", directory.join("ipamd.sock"));
    command
}

#[test]
fn install_without_a_daemon_installs_no_conflist() {
    let node = tempfile::tempdir().unwrap();
    let (_, stderr) = check(&mut of_node(node.path(), &["install"]), 2);
    assert!(stderr.contains("no ipamd answers on "), "{stderr}");
    assert!(node.path().join("bin/aws-cni").exists());
    assert!(!node.path().join("net.d").exists());
}

/// `kubectl set env` gives `TIDEPOOL_ENV_FILE` to all containers, and the daemon's alone may have the file.
#[test]
fn init_goes_on_without_a_settings_file_that_it_lacks() {
    let node = tempfile::tempdir().unwrap();
    let file = node.path().join("env");
    let init = || {
        let mut command = of_node(node.path(), &["init"]);
        command.env("TIDEPOOL_ENV_FILE", &file);
        command
    };
    let (_, stderr) = check(&mut init(), 0);
    assert!(stderr.contains(&format!("this container has no {}", file.display())), "{stderr}");
    assert!(stderr.contains("mount it in this container too"), "{stderr}");
    assert!(node.path().join("bin/aws-cni").exists());
    // A file that is there counts, and a bad one is no missing one.
    let elsewhere = node.path().join("elsewhere");
    std::fs::write(&file, format!("HOST_CNI_BIN_PATH={}\n", elsewhere.display())).unwrap();
    let (_, stderr) = check(&mut init(), 0);
    assert!(!stderr.contains("this container has no"), "{stderr}");
    assert!(elsewhere.join("aws-cni").exists());
    std::fs::write(&file, "HOST_CNI_BIN_PATH\n").unwrap();
    let (_, stderr) = check(&mut init(), 78);
    assert!(stderr.contains("line 1"), "{stderr}");
}

#[test]
fn uninstall_is_refused_while_pods_are_on_record() {
    let node = tempfile::tempdir().unwrap();
    check(&mut of_node(node.path(), &["init"]), 0);
    let plugin = node.path().join("bin/aws-cni");
    assert!(plugin.exists());
    // A record that cannot be read may name pods.
    std::fs::write(node.path().join("tidepool.jsonl"), "?").unwrap();
    let (_, stderr) = check(&mut of_node(node.path(), &["uninstall"]), 1);
    assert!(stderr.contains("pods may be missing from it"), "{stderr}");
    assert!(plugin.exists());
    check(&mut of_node(node.path(), &["uninstall", "--force"]), 0);
    assert!(!plugin.exists());
}

#[test]
fn check_config_hides_the_password_of_an_endpoint() {
    let endpoint = ("AWS_ENDPOINT_URL_EC2", "https://user:sesame@ec2.example:8443");
    for command in ["run", "check-config"] {
        let mut command = ipamd(&[command]);
        command.env("TIDEPOOL_ENV_FILE", "/nonexistent").envs([endpoint]);
        let (stdout, stderr) = check(&mut command, 78);
        assert!(!format!("{stdout}{stderr}").contains("sesame"), "{stdout}\n{stderr}");
    }
    let command = &mut ipamd(&["check-config", "--instance-type", "m5.large"]);
    let (stdout, stderr) = check(command.env("AWS_EC2_ENDPOINT", endpoint.1), 78);
    assert_eq!(stdout, "");
    assert!(stderr.contains("\"https://***@ec2.example:8443\""), "{stderr}");
    let command = &mut ipamd(&["check-config", "--instance-type", "m5.large"]);
    let (stdout, _) = check(command.env("HTTPS_PROXY", "http://user:sesame@proxy.example:3128"), 0);
    assert!(!stdout.contains("sesame"), "{stdout}");
    assert!(stdout.contains("http://***@proxy.example:3128"), "{stdout}");
}

/// A directory with a checkpoint of amazon-vpc-cni-k8s: a pod that is not on this machine, and one
/// from before it recorded names.
fn with_checkpoint() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ipam.json");
    let pod = |container: &str, ipv4: &str, metadata: serde_json::Value| {
        json!({
            "networkName": "aws-cni", "containerID": container, "ifName": "eth0", "ipv4": ipv4,
            "allocationTimestamp": 1_718_000_000_123_456_789_i64, "metadata": metadata,
        })
    };
    let named = json!({"k8sPodNamespace": "default", "k8sPodName": "web-0", "interfacesCount": 1});
    let pods = [pod("4b1c", "10.0.12.34", named), pod("88bb", "10.0.12.35", json!({}))];
    let checkpoint = json!({"version": "vpc-cni-ipam/1", "allocations": pods});
    std::fs::write(&file, checkpoint.to_string()).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (directory, file)
}

#[test]
fn import_checkpoint_shows_what_would_be_taken_over() {
    let (_directory, file) = with_checkpoint();
    let (stdout, _) = check(&mut ipamd(&["import-checkpoint", &file, "--dry-run"]), 0);
    let lines: Vec<_> =
        stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let expect = [
        "POD ADDRESS CONTAINER INTERFACE LINK",
        "- 10.0.12.35 88bb eth0 unknown",
        "default/web-0 10.0.12.34 4b1c eth0 gone",
        "",
        "1 pods would be taken over; 1 addresses of pods that have gone would cool down",
    ];
    assert_eq!(lines, expect);
    let command = &mut ipamd(&["import-checkpoint", &file, "--dry-run", "--output", "json"]);
    let found: serde_json::Value = serde_json::from_str(&check(command, 0).0).unwrap();
    let expect = json!({
        "namespace": "default", "name": "web-0", "network": "aws-cni", "container_id": "4b1c",
        "ifname": "eth0", "address": "10.0.12.34", "since_ns": 1_718_000_000_123_456_789_i64,
        "link": "gone",
    });
    assert_eq!(found["allocations"][1], expect);
    assert!(check(&mut ipamd(&["import-checkpoint", &file]), 64).1.contains("--dry-run"));
}

#[test]
fn bad_checkpoint_is_named_by_entry_and_field() {
    let (_directory, file) = with_checkpoint();
    let text = std::fs::read_to_string(&file).unwrap().replace("12.35", "12.34");
    std::fs::write(&file, text).unwrap();
    let (_, stderr) = check(&mut ipamd(&["import-checkpoint", &file, "--dry-run"]), 1);
    assert_eq!(
        stderr,
        format!(
            "ipamd: nothing can be taken over: parse the checkpoint {file}: \
             allocations[1].ipv4: 10.0.12.34 is also in allocations[0]\n"
        )
    );
}

#[test]
fn export_checkpoint_without_a_record_changes_no_file() {
    let (directory, file) = with_checkpoint();
    let before = std::fs::read(&file).unwrap();
    for to in [&*file, "-"] {
        let command = &mut ipamd(&["export-checkpoint", to]);
        let command = command.env("AWS_VPC_K8S_CNI_BACKING_STORE", &file);
        let (stdout, stderr) = check(command, 3);
        let directory = directory.path().display();
        assert_eq!((&*stdout, stderr), ("", format!("ipamd: there is no record in {directory}\n")));
    }
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

/// The files of a bundle, by name.
fn unpacked(path: &Path) -> std::collections::BTreeMap<String, String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(path).unwrap()));
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name.trim_start_matches("tidepool-support/").to_owned(), text)
    };
    archive.entries().unwrap().map(read).collect()
}

#[test]
fn support_bundle_without_a_daemon_has_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let log = "{\"message\":\"via http://me:pl4nted-in-a-url@proxy\",\"token\":\"pl4nted-token\"}\n\
               Authorization: Bearer pl4nted-bearer\nsaid pl4nted-in-env, too\n";
    std::fs::write(path("ipamd.log"), log).unwrap();
    std::fs::write(path("kubectl.log"), "password=pl4nted-password rest\n").unwrap();
    std::fs::create_dir(path("net.d")).unwrap();
    let plugin = json!({"type": "aws-cni", "apiToken": "pl4nted-in-conflist"});
    let list = json!({"name": "aws-cni", "plugins": [plugin]});
    std::fs::write(path("net.d/10-aws.conflist"), list.to_string()).unwrap();
    let to = path("bundle.tar.gz");
    let mut command = ipamd(&["support-bundle", &to, "--log", &path("kubectl.log")]);
    command.args(["--cni-conf-dir", &path("net.d"), "--cni-bin-dir", &path("bin")]);
    command.env("AWS_VPC_K8S_CNI_LOG_FILE", path("ipamd.log"));
    command.env("AWS_VPC_K8S_CNI_BACKING_STORE", path("ipam.json"));
    command.env("TIDEPOOL_SOCKET", path("ipamd.sock"));
    command.env("HTTPS_PROXY", "http://me:pl4nted-in-proxy@proxy:3128");
    command.env("AWS_SECRET_ACCESS_KEY", "pl4nted-in-env");
    let (stdout, stderr) = check(&mut command, 0);
    assert_eq!(stdout, "");
    let files = unpacked(Path::new(&to));
    for (name, text) in &files {
        assert!(!text.contains("pl4nted"), "{name}: {text}");
        let is_listed = stderr.contains(name.as_str()) || name == "about.txt";
        assert!(is_listed, "{name} is not in the list: {stderr}");
    }
    assert!(files["log/ipamd.log"].contains("said ***, too"), "{files:?}");
    assert!(files["log/further-0.log"].contains("password=*** rest"), "{files:?}");
    assert!(files["settings.txt"].contains("http://***@proxy:3128"), "{files:?}");
    assert!(files["doctor.json"].contains("daemon_silent"), "{files:?}");
    assert!(files["kernel/links.txt"].contains("lo "), "{files:?}");
    assert!(!files["kernel/rules.txt"].is_empty() && !files["kernel/sysctls.txt"].is_empty());
    assert!(stderr.contains("status.json: left out: no ipamd answers on "), "{stderr}");
    // A bad value is named without the password in it.
    command.env("AWS_EC2_ENDPOINT", "https://me:pl4nted-in-endpoint@ec2");
    check(&mut command, 0);
    let files = unpacked(Path::new(&to));
    assert!(files["doctor.json"].contains("bad_setting"), "{files:?}");
    assert!(files.values().all(|text| !text.contains("pl4nted")), "{files:?}");
}

#[test]
fn doctor_without_a_daemon_names_what_it_could_not_compare() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let mut command = ipamd(&["doctor", "--cni-conf-dir", &path("net.d")]);
    command.env("AWS_VPC_K8S_CNI_BACKING_STORE", path("ipam.json"));
    command.env("TIDEPOOL_SOCKET", path("ipamd.sock"));
    let (stdout, stderr) = check(&mut command, 6);
    assert_eq!(stderr, "ipamd: differences: 1\n");
    for line in [
        "DIFFERENCE daemon_silent: ",
        "not compared: record and EC2: no daemon answers",
        "not compared: plugin and its configuration: ",
        "not compared: metadata service and EC2: ",
        "not compared: sysctls: ",
        "differences: 1, ",
    ] {
        assert!(stdout.lines().any(|found| found.starts_with(line)), "{line}\n{stdout}");
    }
}

/// The commands that the help lists.
fn commands() -> Vec<String> {
    let (help, _) = check(&mut ipamd(&["--help"]), 0);
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}

#[test]
fn completions_and_manuals_have_every_command_and_flag() {
    let commands = commands();
    assert!(commands.len() > 10, "{commands:?}");
    for shell in ["bash", "zsh", "fish"] {
        let (script, _) = check(&mut ipamd(&["completions", shell]), 0);
        for word in commands.iter().map(String::as_str).chain(["namespace", "output"]) {
            assert!(script.contains(word), "{shell} cannot complete {word}");
        }
    }
    let (script, _) = check(&mut ipamd(&["completions", "bash"]), 0);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ipamd.bash");
    std::fs::write(&path, script).unwrap();
    let words = "COMP_WORDS=(ipamd pods --out); COMP_CWORD=2; _ipamd ipamd --out pods; echo ${COMPREPLY[@]}";
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("source {}; {words}", path.display())]);
    let (completed, _) = check(&mut bash, 0);
    assert_eq!(completed, "--output\n");

    let pages = directory.path().join("man1");
    std::fs::create_dir(&pages).unwrap();
    check(&mut ipamd(&["manuals", pages.to_str().unwrap()]), 0);
    for command in &commands {
        let page = std::fs::read_to_string(pages.join(format!("ipamd-{command}.1"))).unwrap();
        assert!(page.contains(".TH"), "{command}: {page}");
    }
    let page = std::fs::read_to_string(pages.join("ipamd-pods.1")).unwrap();
    assert!(page.contains("namespace") && page.contains("Only pods of this namespace"), "{page}");
    assert!(!pages.join("ipamd-plan.1").exists(), "a command that has moved");
    let missing = directory.path().join("none");
    check(&mut ipamd(&["manuals", missing.to_str().unwrap()]), 1);
}
