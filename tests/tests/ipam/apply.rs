//! `tidepool ipam plan --apply`: what it makes is there once, whatever happens on the way.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::process::{PATIENCE, program};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::{Instant, interval, timeout_at};

use crate::{Desk, KEYS, PLAN, element, run_by_aws_cli};

/// The calls that the plan needs: each action, and how often.
const CALLS: [(&str, u64); 3] =
    [("CreateSubnet", 2), ("CreateSubnetCidrReservation", 4), ("CreateVpc", 1)];

/// The calls of its pool, before these.
const POOL_CALLS: [(&str, u64); 2] = [("CreateIpamPool", 1), ("ProvisionIpamPoolCidr", 1)];

/// Each of these calls: the action, and the how manyth of it.
fn each_call() -> impl Iterator<Item = (&'static str, u64)> {
    CALLS.into_iter().flat_map(|(action, n)| (1..=n).map(move |nth| (action, nth)))
}

/// The calls that have changed something or tried to.
async fn changes(desk: &Desk) -> Result<BTreeMap<String, u64>> {
    let mut calls = desk.sim.calls().await?;
    calls.retain(|action, _| !action.starts_with("Describe") && !action.starts_with("Get"));
    Ok(calls)
}

fn once() -> BTreeMap<String, u64> {
    CALLS.into_iter().map(|(action, n)| (action.to_owned(), n)).collect()
}

/// A simulator, and the plan beside it.
async fn desk(name: &str) -> Result<(Desk, String)> {
    let desk = Desk::start(name).await?;
    let plan = desk.file("plan.yaml");
    std::fs::write(&plan, PLAN)?;
    Ok((desk, plan))
}

/// The exit code and standard error.
async fn apply(desk: &Desk, plan: &str) -> Result<(i32, String)> {
    let (code, _, stderr) = desk.ipam(&["plan", plan, "--apply", "--yes"]).await?;
    Ok((code, stderr))
}

/// Whether each object of the plan is there once: a second apply finds all, and no name is there twice.
async fn is_there_once(desk: &Desk, plan: &str) -> Result<()> {
    let before = changes(desk).await?;
    let (code, stderr) = apply(desk, plan).await?;
    assert_eq!((code, &*stderr), (0, "nothing to make\n"));
    assert_eq!(changes(desk).await?, before, "a second apply calls");
    let filter = [("Filter.1.Name", "tag:pool"), ("Filter.1.Value.1", "eu")];
    for (action, element, n) in
        [("DescribeVpcs", "<cidrBlockState>", 1), ("DescribeSubnets", "<subnetId>", 2)]
    {
        let answer = desk.sim.ec2(action, &filter).await?;
        assert_eq!(answer.matches(element).count(), n, "{action}: {answer}");
    }
    Ok(())
}

/// `tidepool ipam plan --apply --yes` as a child.
fn start(desk: &Desk, plan: &str, options: &[&str]) -> Result<Child> {
    let mut command = Command::new(program("tidepool")?);
    command.args(["ipam", "plan", plan, "--apply", "--yes"]).args(options).env_clear().envs(KEYS);
    command.env("AWS_ENDPOINT_URL_EC2", desk.sim.url()).env("AWS_REGION", "us-east-1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command.spawn()?)
}

/// Waits until `action` has been called `n` times.
async fn called(desk: &Desk, action: &str, n: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut again = interval(std::time::Duration::from_millis(20));
    loop {
        let calls = desk.sim.calls().await?;
        if calls.get(action).is_some_and(|made| *made >= n) {
            return Ok(());
        }
        timeout_at(deadline, again.tick()).await.with_context(|| format!("{action}: {calls:?}"))?;
        ensure!(Instant::now() < deadline, "{action}: {calls:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_makes_everything_once() -> Result<()> {
    let (desk, plan) = desk("ipam-apply").await?;
    let (code, stdout, stderr) = desk.ipam(&["plan", &plan, "--apply"]).await?;
    ensure!(
        code == 64 && stdout.is_empty() && stderr.contains("no terminal: give --yes"),
        "{stderr}"
    );
    ensure!(stderr.contains("to make: eu/planned, VPC 10.16.0.0/23, us-east-1\n"), "{stderr}");
    assert_eq!(changes(&desk).await?, BTreeMap::new());

    let (code, stderr) = apply(&desk, &plan).await?;
    ensure!(code == 0 && stderr.ends_with("7 made\n"), "{code}: {stderr}");
    assert_eq!(changes(&desk).await?, once());
    is_there_once(&desk, &plan).await?;
    desk.sim.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_that_is_lost_is_not_made_again() -> Result<()> {
    for (action, nth) in each_call() {
        let (desk, plan) = desk(&format!("ipam-apply-lost-{action}-{nth}")).await?;
        desk.sim
            .fault(json!({"action": action, "when": {"nth": nth}, "effect": "lose_reply"}))
            .await?;
        let (code, stderr) = apply(&desk, &plan).await?;
        ensure!(
            code == 0 && stderr.contains("reading whether it is made"),
            "{action} {nth}: {stderr}"
        );
        assert_eq!(changes(&desk).await?, once(), "{action} {nth}");
        is_there_once(&desk, &plan).await?;
        desk.sim.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_goes_on_after_a_kill_at_any_call() -> Result<()> {
    for (action, nth) in each_call() {
        let (desk, plan) = desk(&format!("ipam-apply-kill-{action}-{nth}")).await?;
        let effect = json!({"delay": {"ms": 600_000}});
        desk.sim.fault(json!({"action": action, "when": {"nth": nth}, "effect": effect})).await?;
        let mut child = start(&desk, &plan, &[])?;
        called(&desk, action, nth).await?;
        child.kill().await?;
        let (code, stderr) = apply(&desk, &plan).await?;
        ensure!(code == 0, "{action} {nth}: {stderr}");
        assert_eq!(changes(&desk).await?, once(), "{action} {nth}");
        desk.sim.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_call_names_the_action_and_what_is_made() -> Result<()> {
    let (desk, plan) = desk("ipam-apply-denied").await?;
    desk.sim.fail("CreateSubnet", 1, "UnauthorizedOperation").await?;
    let (code, stderr) = apply(&desk, &plan).await?;
    ensure!(code == 1 && stderr.contains("\nmade eu/planned: vpc-"), "{code}: {stderr}");
    let expect = "it needs ec2:CreateSubnet and ec2:CreateTags; 1 made, named above; the same command makes the rest\n";
    ensure!(stderr.ends_with(expect), "{stderr}");
    // What may not be read may be there.
    desk.sim.fail("GetSubnetCidrReservations", 1, "UnauthorizedOperation").await?;
    let (code, stderr) = apply(&desk, &plan).await?;
    ensure!(
        code == 1 && stderr.contains("GetSubnetCidrReservations in us-east-1, which --apply needs"),
        "{stderr}"
    );
    // Throttling ends by itself, and so does a server that does not know the VPC yet.
    desk.sim.fail("CreateSubnet", 1, "RequestLimitExceeded").await?;
    desk.sim.fail("CreateSubnetCidrReservation", 1, "InvalidSubnetID.NotFound").await?;
    let (code, stderr) = apply(&desk, &plan).await?;
    ensure!(code == 0 && stderr.contains("RequestLimitExceeded; waiting"), "{code}: {stderr}");
    is_there_once(&desk, &plan).await?;
    desk.sim.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_bears_an_ec2_that_lags() -> Result<()> {
    let (desk, plan) = desk("ipam-apply-lag").await?;
    desk.sim.switch(json!({"consistency": "realistic", "latency": "realistic"})).await?;
    desk.sim
        .fault(json!({"action": "CreateVpc", "when": {"nth": 1}, "effect": "lose_reply"}))
        .await?;
    let (code, stderr) = apply(&desk, &plan).await?;
    ensure!(code == 0, "{code}: {stderr}");
    assert_eq!(changes(&desk).await?.get("CreateVpc"), Some(&1), "{stderr}");
    desk.sim.switch(json!({"consistency": "none"})).await?;
    is_there_once(&desk, &plan).await?;
    desk.sim.stop().await
}

/// An IPAM in the simulator: the options that name its private scope.
async fn scope(desk: &Desk) -> Result<[String; 2]> {
    let region = [("OperatingRegion.1.RegionName", "us-east-1")];
    let answer = desk.sim.ec2("CreateIpam", &region).await?;
    let scope = element(&answer, "privateDefaultScopeId")?;
    Ok(["--ipam-region=us-east-1".to_owned(), format!("--ipam-scope={scope}")])
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_are_made_once_and_vpcs_draw_from_them() -> Result<()> {
    let killed = POOL_CALLS.map(|(action, _)| (action, json!({"delay": {"ms": 600_000}})));
    let lost = ["CreateIpamPool", "ProvisionIpamPoolCidr", "CreateVpc"];
    let lost = lost.map(|action| (action, json!("lose_reply")));
    for (n, (action, effect)) in killed.into_iter().chain(lost).enumerate() {
        let (desk, plan) = desk(&format!("ipam-apply-pool-{n}")).await?;
        let options = scope(&desk).await?;
        let before = changes(&desk).await?;
        let is_kill = effect.is_object();
        let when = json!({"nth": 1});
        desk.sim.fault(json!({"action": action, "when": when, "effect": effect})).await?;
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        if is_kill {
            let mut child = start(&desk, &plan, &options)?;
            called(&desk, action, 1).await?;
            child.kill().await?;
        }
        let apply = [&["plan", &plan, "--apply", "--yes"], &options[..]].concat();
        let (code, _, stderr) = desk.ipam(&apply).await?;
        ensure!(code == 0, "{code}: {stderr}");
        let mut expect = before;
        expect
            .extend(CALLS.into_iter().chain(POOL_CALLS).map(|(action, n)| (action.to_owned(), n)));
        assert_eq!(changes(&desk).await?, expect, "{action:?}");
        let (code, _, stderr) = desk.ipam(&apply).await?;
        assert_eq!((code, &*stderr), (0, "nothing to make\n"));
        assert_eq!(changes(&desk).await?, expect, "a second apply calls");
        let (_, audit) = desk.audit(&[]).await?;
        let pool = &audit["pools"][0];
        assert_eq!(
            (pool["provisioned"].as_u64(), pool["allocated"].as_u64()),
            (Some(512), Some(512))
        );
        desk.sim.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn script_makes_pools_too() -> Result<()> {
    let (desk, plan) = desk("ipam-apply-pool-script").await?;
    let options = scope(&desk).await?;
    let script = desk.file("plan.sh");
    let (code, _, stderr) =
        desk.ipam(&["plan", &plan, "--commands", &script, &options[0], &options[1]]).await?;
    ensure!(code == 0, "{stderr}");
    run_by_aws_cli(&script, &desk.sim).await?;
    let (code, _, stderr) =
        desk.ipam(&["plan", &plan, "--apply", "--yes", &options[0], &options[1]]).await?;
    assert_eq!((code, &*stderr), (0, "nothing to make\n"));
    desk.sim.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_that_take_time_are_awaited() -> Result<()> {
    let (desk, plan) = desk("ipam-apply-pool-slow").await?;
    let options = scope(&desk).await?;
    let short = json!({"min_ms": 400, "max_ms": 400});
    let slow = json!({"create": short, "modify": short, "delete": short, "provision": short, "deprovision": short});
    desk.sim.switch(json!({"ipam": {"transitions": {"custom": slow}}})).await?;
    let (code, _, stderr) =
        desk.ipam(&["plan", &plan, "--apply", "--yes", &options[0], &options[1]]).await?;
    ensure!(code == 0 && stderr.ends_with("9 made\n"), "{code}: {stderr}");
    ensure!(stderr.contains("IncorrectState; waiting"), "{stderr}");
    desk.sim.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_stays_and_is_named() -> Result<()> {
    let (desk, plan) = desk("ipam-apply-way").await?;
    let vpc = [("CidrBlock", "10.16.1.0/24")];
    desk.sim.ec2("CreateVpc", &vpc).await?;
    let before = changes(&desk).await?;
    let (code, stderr) = apply(&desk, &plan).await?;
    ensure!(
        code == 6 && stderr.contains("has 10.16.1.0/24, which overlaps 10.16.0.0/23"),
        "{code}: {stderr}"
    );
    ensure!(stderr.contains("nothing to make"), "{stderr}");
    assert_eq!(changes(&desk).await?, before);
    desk.sim.stop().await?;

    // A reservation of another kind is in no difference of `--diff`.
    let (desk, plan) = self::desk("ipam-apply-way-reservation").await?;
    apply(&desk, &plan).await?;
    let subnet = desk.subnet("blue-a").await?;
    let of_subnet = [("SubnetId", subnet.as_str())];
    let answer = desk.sim.ec2("GetSubnetCidrReservations", &of_subnet).await?;
    let (id, cidr) = (element(&answer, "subnetCidrReservationId")?, element(&answer, "cidr")?);
    desk.sim.ec2("DeleteSubnetCidrReservation", &[("SubnetCidrReservationId", &id)]).await?;
    let explicit = [of_subnet[0], ("Cidr", &cidr), ("ReservationType", "explicit")];
    desk.sim.ec2("CreateSubnetCidrReservation", &explicit).await?;
    let before = changes(&desk).await?;
    let (code, stderr) = apply(&desk, &plan).await?;
    ensure!(
        code == 6 && stderr.contains("steps that are not made: 1; stderr says why"),
        "{code}: {stderr}"
    );
    assert_eq!(changes(&desk).await?, before);
    desk.sim.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupt_ends_between_two_calls() -> Result<()> {
    let (desk, plan) = desk("ipam-apply-interrupt").await?;
    let delay = desk.sim.delay("CreateVpc").await?;
    let child = start(&desk, &plan, &[])?;
    called(&desk, "CreateVpc", 1).await?;
    let pid = child.id().context("it has ended")?.to_string();
    ensure!(Command::new("kill").args(["-INT", &pid]).status().await?.success(), "kill");
    desk.sim.answer_delayed(delay).await?;
    let out = child.wait_with_output().await?;
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    let expect = "tidepool: interrupted; 1 made, named above; the same command makes the rest\n";
    ensure!(out.status.code() == Some(1) && stderr.ends_with(expect), "{:?}: {stderr}", out.status);
    let (code, stderr) = apply(&desk, &plan).await?;
    ensure!(code == 0, "{stderr}");
    assert_eq!(changes(&desk).await?, once());
    desk.sim.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn terminal_is_asked() -> Result<()> {
    let (desk, plan) = desk("ipam-apply-terminal").await?;
    let python = std::env::var_os("TIDEPOOL_PYTHON").context("set TIDEPOOL_PYTHON to a Python")?;
    let tool = program("tidepool")?;
    // A terminal of its own for the command, whose keys are standard input.
    let script =
        "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    for (answer, expect, made) in
        [("no\n", "nothing is made", BTreeMap::new()), ("yes\n", "7 made", once())]
    {
        let mut command = Command::new(Path::new(&python));
        command.args(["-c", script]).arg(&tool).args(["ipam", "plan", &plan, "--apply"]);
        command.env_clear().envs(KEYS).env("AWS_REGION", "us-east-1");
        command.env("AWS_ENDPOINT_URL_EC2", desk.sim.url());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        child.stdin.take().context("stdin")?.write_all(answer.as_bytes()).await?;
        let out = child.wait_with_output().await?;
        let text = String::from_utf8_lossy(&out.stdout);
        ensure!(
            text.contains("make 7 things? Only `yes` does: ") && text.contains(expect),
            "{text}"
        );
        assert_eq!(changes(&desk).await?, made, "{answer}");
    }
    desk.sim.stop().await
}
