//! `tidepool ipam` against a simulated EC2 with an address space that has faults.

mod apply;
mod canned_aws;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::process::program;
use tests::sim::{Sim, element};
use tokio::process::Command;

use crate::canned_aws::CannedAws;

/// The account's credentials; the simulator verifies none.
const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "any"), ("AWS_SECRET_ACCESS_KEY", "any")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A simulator in a folder of its own, and the tool.
struct Desk {
    sim: Sim,
    dir: PathBuf,
}

impl Desk {
    async fn start(name: &str) -> Result<Self> {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // A ready file of an earlier run names a simulator that is gone.
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        let topology = root().join("tests/ipam/address-space.yaml");
        let sim = Sim::start_without_fabric(&topology, &dir).await?;
        Ok(Self { sim, dir })
    }

    /// The subnet with this tag `Name`.
    async fn subnet(&self, name: &str) -> Result<String> {
        let filter = [("Filter.1.Name", "tag:Name"), ("Filter.1.Value.1", name)];
        let answer = self.sim.ec2("DescribeSubnets", &filter).await?;
        element(&answer, "subnetId")
    }

    /// Makes an interface in a subnet.
    async fn interface(&self, subnet: &str, blocks: &[(&str, &str)]) -> Result<()> {
        let subnet = self.subnet(subnet).await?;
        let parameters = [&[("SubnetId", subnet.as_str())], blocks].concat();
        self.sim.ec2("CreateNetworkInterface", &parameters).await?;
        Ok(())
    }

    /// The address space of the topology with its interfaces.
    async fn filled(name: &str) -> Result<Self> {
        let desk = Self::start(name).await?;
        desk.interface("shop-full", &[("Ipv4PrefixCount", "14")]).await?;
        desk.interface("shop-full", &[("SecondaryPrivateIpAddressCount", "20")]).await?;
        for block in 1..8 {
            let address = format!("10.0.32.{}", block * 16 + 3);
            desk.interface("shop-scattered", &[("PrivateIpAddress", &address)]).await?;
        }
        for _ in 0..6 {
            desk.interface("billing-a", &[("Ipv4PrefixCount", "15")]).await?;
        }
        desk.interface("billing-b", &[("SecondaryPrivateIpAddressCount", "49")]).await?;
        Ok(desk)
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// The exit code, standard output and standard error of `tidepool ipam`, with EC2 at the simulator.
    async fn ipam(&self, arguments: &[&str]) -> Result<(i32, String, String)> {
        let url = self.sim.url();
        let place = [("AWS_ENDPOINT_URL_EC2", url.as_str()), ("AWS_REGION", "us-east-1")];
        tidepool(arguments, &[&KEYS[..], &place].concat()).await
    }

    async fn audit(&self, arguments: &[&str]) -> Result<(i32, Value)> {
        let (code, stdout, stderr) =
            self.ipam(&[&["audit", "--output", "json"], arguments].concat()).await?;
        let json = serde_json::from_str(&stdout);
        Ok((code, json.with_context(|| format!("{code}: {stdout}{stderr}"))?))
    }
}

async fn tidepool(arguments: &[&str], variables: &[(&str, &str)]) -> Result<(i32, String, String)> {
    let mut command = Command::new(program("tidepool")?);
    command.arg("ipam").args(arguments).env_clear().envs(variables.iter().copied());
    let out = command.output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((out.status.code().context("a signal")?, text(&out.stdout), text(&out.stderr)))
}

/// The code and severity of each finding, and the name of its subnet if it is about one.
fn findings(audit: &Value) -> Vec<String> {
    let names = audit["subnets"].as_array().into_iter().flatten();
    let names: Vec<_> = names.map(|subnet| (&subnet["id"], &subnet["name"])).collect();
    let finding = |one: &Value| {
        let name =
            names.iter().find(|(id, _)| **id == one["subject"]).map(|(_, name)| name.as_str());
        let name = name.flatten().unwrap_or_default();
        format!("{} {} {name}", one["severity"], one["code"]).replace('"', "").trim_end().to_owned()
    };
    audit["findings"].as_array().into_iter().flatten().map(finding).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_finds_the_faults_and_changes_nothing() -> Result<()> {
    let desk = Desk::filled("ipam-audit").await?;
    let before = desk.sim.calls().await?;
    let (saved, map) = (desk.file("inventory.json"), desk.file("map.svg"));
    let (code, audit) = desk.audit(&["--save", &saved, "--map", &map]).await?;
    let after = desk.sim.calls().await?;
    let made = after.iter().filter(|(action, n)| before.get(*action) != Some(n));
    for (action, _) in made {
        ensure!(action.starts_with("Describe") || action.starts_with("Get"), "{action} is called");
    }

    assert_eq!(code, 6);
    assert_eq!(
        findings(&audit),
        [
            "failure subnet_full shop-full",
            "warning overlap",
            "warning subnet_full billing-b",
            "warning subnet_fragmented shop-scattered",
        ]
    );
    let overlap = &audit["overlaps"][0];
    assert_eq!(
        (&overlap["shared"], &overlap["relation"]),
        (&json!("10.0.0.0/17"), &json!("account"))
    );
    let rooms = audit["subnets"].as_array().context("subnets")?.iter().map(|subnet| {
        let room = &subnet["room"];
        json!([
            subnet["name"],
            room["used"],
            room["unseen"],
            room["free_prefixes"],
            room["largest_free"]
        ])
    });
    let mut rooms: Vec<_> = rooms.map(|room| room.to_string()).collect();
    rooms.sort();
    assert_eq!(
        rooms,
        [
            r#"["billing-a",1446,0,932,"10.0.80.0/20"]"#,
            r#"["billing-b",51,0,0,"10.9.0.56/30"]"#,
            r#"["shop-full",247,0,0,"10.0.0.252/31"]"#,
            r#"["shop-reserved",1,0,16,"10.0.136.0/21"]"#,
            r#"["shop-scattered",7,0,0,"10.0.32.8/29"]"#,
        ]
    );
    let nodes = audit["holders"].as_array().context("holders")?.iter();
    let nodes: Vec<_> =
        nodes.filter(|one| one["holder"] == json!({"node": {"cluster": "blue"}})).collect();
    assert_eq!((nodes.len(), &nodes[0]["n_enis"]), (1, &json!(2)));

    // The same from the file, without EC2.
    let again = ["audit", "--output", "json", "--from", &saved];
    let (code, stdout, _) = tidepool(&again, &[]).await?;
    assert_eq!((code, serde_json::from_str::<Value>(&stdout)?), (6, audit));
    is_the_picture_of_the_documents(Path::new(&map))?;
    desk.sim.stop().await
}

/// The picture in the documents shows this address space. `UPDATE_EXPECT=1` draws it again.
fn is_the_picture_of_the_documents(map: &Path) -> Result<()> {
    let drawn = std::fs::read_to_string(map)?;
    let file = root().join("../docs/charts/address-space.svg");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&file, &drawn)?;
    }
    ensure!(
        std::fs::read_to_string(&file)? == drawn,
        "UPDATE_EXPECT=1 draws {} again",
        file.display()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn thresholds_and_wanted_overlaps_decide_the_exit_code() -> Result<()> {
    let desk = Desk::filled("ipam-thresholds").await?;
    let (code, audit) = desk.audit(&["--fail-at", "99", "--warn-at", "99"]).await?;
    assert_eq!(
        (code, findings(&audit)),
        (
            0,
            vec![
                "warning overlap".to_owned(),
                "warning subnet_fragmented shop-scattered".to_owned()
            ]
        )
    );
    let (_, audit) = desk.audit(&["--expect-overlaps", "10.0.0.0/16"]).await?;
    ensure!(!findings(&audit).contains(&"warning overlap".to_owned()), "{audit}");
    let (code, audit) = desk.audit(&["--fail-at", "85"]).await?;
    assert_eq!((code, audit["findings"][1]["code"].as_str()), (6, Some("subnet_full")));
    desk.sim.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_read_is_a_gap_or_an_error() -> Result<()> {
    let desk = Desk::start("ipam-gaps").await?;
    let denied = "UnauthorizedOperation";
    for action in ["GetSubnetCidrReservations", "DescribeInstances", "DescribeIpamPools"] {
        desk.sim.fail(action, 1, denied).await?;
    }
    let (_, audit) = desk.audit(&[]).await?;
    let gaps = audit["gaps"].as_array().context("gaps")?.iter();
    let gaps: Vec<_> = gaps.filter_map(|gap| gap["operation"].as_str()).collect();
    for operation in ["GetSubnetCidrReservations", "DescribeInstances"] {
        ensure!(gaps.contains(&operation), "{operation}: {gaps:?}");
    }
    desk.sim.fail("DescribeIpamPools", 1, denied).await?;
    let (_, stdout, _) = desk.ipam(&["audit"]).await?;
    ensure!(stdout.contains("Amazon VPC IPAM is not used here, or may not be read"), "{stdout}");

    desk.sim.fail("DescribeSubnets", 1, denied).await?;
    let (code, stdout, stderr) = desk.ipam(&["audit"]).await?;
    assert_eq!((code, &*stdout, stderr.lines().count()), (1, "", 1), "{stderr}");
    let expect = "tidepool: ask EC2 DescribeSubnets in us-east-1: UnauthorizedOperation: ";
    ensure!(stderr.starts_with(expect), "{stderr}");
    desk.sim.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn source_that_cannot_be_read_is_one_line() -> Result<()> {
    let check = async |arguments: &[&str], variables: &[(&str, &str)], code, expect: &str| {
        let found = tidepool(&[&["audit"], arguments].concat(), variables).await?;
        let (status, stdout, stderr) = found;
        assert_eq!((status, &*stdout, stderr.lines().count()), (code, "", 1), "{stderr}");
        ensure!(stderr.starts_with(expect), "{stderr}");
        anyhow::Ok(())
    };
    check(&["--from", "/none"], &[], 1, "tidepool: read /none: No such file").await?;
    check(&["--region", "r", "--endpoint", "sim"], &[], 64, "tidepool: --endpoint \"sim\": ")
        .await?;
    // Nothing listens on port 1.
    let away = ["--region", "us-east-1", "--endpoint", "http://127.0.0.1:1"];
    check(&away, &KEYS, 1, "tidepool: ask EC2 DescribeVpcs in us-east-1: NoAnswer: ").await
}

#[tokio::test(flavor = "multi_thread")]
async fn bill_has_both_bounds_and_other_targets() -> Result<()> {
    let desk = Desk::filled("ipam-cost").await?;
    let json = ["cost", "--output", "json", "--pods-per-node", "5"];
    let (code, stdout, stderr) = desk.ipam(&json).await?;
    assert_eq!((code, &*stderr), (0, ""));
    let bill: Value = serde_json::from_str(&stdout)?;
    // 14 and 90 prefixes; 3 instances, and 1, 21, 7, 6 and 50 addresses of interfaces.
    let total = json!({"addresses": 88, "prefixes": 104, "ipv6_prefixes": 0, "public": 0});
    assert_eq!(bill["bill"]["total"], total);
    assert_eq!(bill["total"]["active"], json!({"least": 192, "most": 1752}));
    assert_eq!(bill["total"]["usd_by_hour"], json!({"least": "0.05184", "most": "0.47304"}));
    assert_eq!(bill["clusters"][0]["usd_by_month"]["most"], "0.39420");
    let targets = bill["targets"].as_array().context("targets")?.iter().map(|row| {
        json!([row["targets"], row["active"]["least"], row["active"]["most"]]).to_string()
    });
    assert_eq!(
        targets.collect::<Vec<_>>(),
        [
            r#"["now",2,2]"#,
            r#"["WARM_ENI_TARGET=1 (default)",40,40]"#,
            r#"["WARM_IP_TARGET=5",24,24]"#,
            r#"["WARM_IP_TARGET=2",16,16]"#,
            r#"["ENABLE_PREFIX_DELEGATION=true",6,66]"#,
            r#"["ENABLE_PREFIX_DELEGATION=true WARM_IP_TARGET=5",4,34]"#,
            r#"["ENABLE_PREFIX_DELEGATION=true ENABLE_IPv6=true",4,4]"#,
        ]
    );
    let (_, stdout, _) = desk.ipam(&["cost", "--active-address", "1"]).await?;
    for text in ["192 to 1752", "active address: 1.00 USD/h (from the command line)", "2026-09)"] {
        ensure!(stdout.contains(text), "{text}: {stdout}");
    }
    let (code, _, stderr) = desk.ipam(&["cost", "--active-address", "free"]).await?;
    ensure!(code == 64 && stderr.contains("expected dollars by the hour"), "{stderr}");
    desk.sim.stop().await
}

/// A plan of one VPC with two subnets.
const PLAN: &str = "
space: [10.0.0.0/8]
reserved: [{cidr: 10.0.0.0/12}]
pools:
  - name: eu
    region: us-east-1
    vpcs:
      - name: planned
        zones: [a, b]
        clusters:
          - {name: blue, instance_type: m5.large, nodes: 4, pods_per_node: 20, settings: {ENABLE_PREFIX_DELEGATION: 'true'}}
";

/// The AWS CLI, beside the Python of `TIDEPOOL_PYTHON`, runs a script.
async fn run_by_aws_cli(script: &str, sim: &Sim) -> Result<()> {
    let python = std::env::var_os("TIDEPOOL_PYTHON");
    let python =
        python.context("set TIDEPOOL_PYTHON to a Python with tests/wire/requirements.txt")?;
    let folder = Path::new(&python).parent().context("TIDEPOOL_PYTHON is no path")?;
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", folder.display());
    let mut command = Command::new("sh");
    command.arg(script).env_clear().envs(KEYS).env("PATH", path);
    let out = command.env("AWS_ENDPOINT_URL_EC2", sim.url()).output().await?;
    ensure!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_is_carried_out_by_its_commands_and_then_there() -> Result<()> {
    let desk = Desk::start("ipam-plan").await?;
    let (plan, script, terraform) =
        (desk.file("plan.yaml"), desk.file("plan.sh"), desk.file("plan.tf.json"));
    std::fs::write(&plan, PLAN)?;
    let kinds = |stdout: &str| -> Result<Vec<String>> {
        let report: Value = serde_json::from_str(stdout)?;
        let all = report["differences"].as_array().into_iter().flatten();
        Ok(all.map(|one| one["kind"].as_str().unwrap_or_default().to_owned()).collect())
    };
    let diff = ["plan", &plan, "--diff", "--output", "json"];
    let more = ["--commands", &script, "--terraform", &terraform];
    let (code, stdout, _) = desk.ipam(&[&diff[..], &more].concat()).await?;
    assert_eq!(
        (code, kinds(&stdout)?),
        (6, ["missing", "unplanned", "unplanned"].map(str::to_owned).to_vec())
    );
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&terraform)?)?;
    assert_eq!(written["resource"]["aws_vpc"]["eu_planned"]["cidr_block"], "10.16.0.0/23");

    run_by_aws_cli(&script, &desk.sim).await?;
    let (code, stdout, _) = desk.ipam(&diff).await?;
    let there = ["unplanned", "unplanned", "same", "same", "same"];
    assert_eq!((code, kinds(&stdout)?), (0, there.map(str::to_owned).to_vec()));
    // Four nodes in two zones, one more while they are replaced; three prefixes each.
    let report: Value = serde_json::from_str(&stdout)?;
    assert_eq!(report["nodes"][0]["prefixes"], 3);
    let (_, audit) = desk.audit(&[]).await?;
    let subnets = audit["subnets"].as_array().context("subnets")?.iter();
    let planned = subnets.filter(|subnet| subnet["name"] == "blue-a");
    let free: Vec<_> = planned.map(|subnet| &subnet["room"]["free_prefixes"]).collect();
    assert_eq!(free, [&json!(9)], "the reservation has room for each prefix");
    desk.sim.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_that_is_wrong_is_not_exported() -> Result<()> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ipam-wrong-plan");
    std::fs::create_dir_all(&dir)?;
    let (plan, script) = (dir.join("plan.yaml"), dir.join("plan.sh"));
    let check = async |text: &str, code, expect: &str| {
        std::fs::write(&plan, text)?;
        let files = [&plan, &script].map(|file| file.display().to_string());
        let found = tidepool(&["plan", &files[0], "--commands", &files[1]], &[]).await?;
        ensure!(found.0 == code && format!("{}{}", found.1, found.2).contains(expect), "{found:?}");
        ensure!(!script.exists(), "it is exported");
        anyhow::Ok(())
    };
    check(
        &PLAN.replace("pods_per_node: 20", "pods_per_node: 200"),
        6,
        "200 pods do not fit on m5.large",
    )
    .await?;
    check(
        &PLAN.replace("name: planned", "name: planned\n        cidr: 10.1.0.0/20"),
        6,
        "overlap eu/planned",
    )
    .await?;
    check(&PLAN.replace("zones:", "zone:"), 1, "unknown field `zone`").await?;
    check(&PLAN.replace("10.0.0.0/8", "10.0.0.0/99"), 1, "line 2").await?;
    let example = root().join("../tidepool/examples/address-plan.yaml");
    let (code, stdout, _) = tidepool(&["plan", &example.display().to_string()], &[]).await?;
    ensure!(code == 0 && stdout.contains("10.16.7.48/28"), "{stdout}");
    let source = tidepool(&["plan", &example.display().to_string(), "--region", "r"], &[]).await?;
    ensure!(source.0 == 64 && source.2.contains("--diff"), "{source:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn role_reads_pools_peerings_and_addresses() -> Result<()> {
    let aws = CannedAws::start(&[]).await?;
    let place = [("AWS_ENDPOINT_URL_STS", aws.url.as_str()), ("AWS_REGION", "us-east-1")];
    let variables = [&KEYS[..], &place].concat();
    let role = "arn:aws:iam::111122223333:role/audit";
    let from = ["--endpoint", &aws.url, "--role", role, "--output", "json"];
    let (code, stdout, stderr) = tidepool(&[&["audit"], &from[..]].concat(), &variables).await?;
    let audit: Value = serde_json::from_str(&stdout).with_context(|| stderr.clone())?;
    assert_eq!(
        (code, findings(&audit)),
        (6, ["failure overlap_connected", "warning pool_rule"].map(str::to_owned).to_vec())
    );
    assert_eq!(audit["overlaps"][0]["relation"], json!({"shared-peer": {"via": "vpc-hub"}}));
    let pool = &audit["pools"][0];
    assert_eq!((&pool["scope"], &pool["provisioned"]), (&json!("ipam-scope-1"), &json!(131_072)));
    assert_eq!(
        pool["broken_rules"],
        json!(["vpc-a: 10.0.0.0/16 is larger than the /20 that the pool allows"])
    );
    assert_eq!(audit["gaps"], json!([]));
    assert_eq!(
        (aws.keys_of("AssumeRole"), aws.keys_of("DescribeVpcs")),
        (vec!["any".to_owned()], vec!["ASSUMED".to_owned()])
    );

    let (_, stdout, _) = tidepool(&[&["cost"], &from[..]].concat(), &variables).await?;
    let bill: Value = serde_json::from_str(&stdout)?;
    assert_eq!(
        (&bill["bill"]["unused_public"], &bill["bill"]["total"]["public"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(
        (&bill["has_pools"], &bill["total"]["usd_by_hour"]["most"]),
        (&json!(true), &json!("0.01054"))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_profile_is_read_in_each_region() -> Result<()> {
    let aws = CannedAws::start(&[]).await?;
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ipam-profiles");
    std::fs::create_dir_all(&dir)?;
    let file = dir.join("credentials").display().to_string();
    let profile =
        |name: &str| format!("[{name}]\naws_access_key_id = {name}\naws_secret_access_key = s\n");
    std::fs::write(&file, profile("one") + &profile("two"))?;
    // Keys in the environment are not those of a profile.
    let place =
        [("AWS_SHARED_CREDENTIALS_FILE", file.as_str()), ("AWS_ENDPOINT_URL_EC2", &aws.url)];
    let variables = [&KEYS[..], &place].concat();
    let profiles =
        ["--profile", "one", "--profile", "two", "--region", "us-east-1", "--region", "eu-west-1"];
    let (code, _, stderr) = tidepool(&[&["audit"], &profiles[..]].concat(), &variables).await?;
    let mut keys = aws.keys_of("DescribeVpcs");
    keys.sort();
    assert_eq!(
        (code, keys),
        (6, ["one", "one", "two", "two"].map(str::to_owned).to_vec()),
        "{stderr}"
    );
    let (code, _, stderr) =
        tidepool(&["audit", "--profile", "three", "--region", "us-east-1"], &variables).await?;
    ensure!(
        code == 1
            && stderr.contains("DescribeVpcs in us-east-1 as profile three: ")
            && stderr.lines().count() == 1,
        "{code}: {stderr}"
    );
    Ok(())
}
