//! The organisation: its accounts and Regions, calls in their names, and `tidepool ipam` as a planner of it.
//!
//! It knows nothing of what the calls are for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::process::program;
use tests::sim::Sim;
use tests::story::Story;
use tokio::process::Command;

/// The Region of the IPAM and of the cluster.
pub(crate) const HOME: &str = "us-east-1";
/// The other Region.
pub(crate) const AWAY: &str = "eu-west-1";

/// An account of the organisation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    pub(crate) name: &'static str,
    pub(crate) id: &'static str,
    /// The id of its access key.
    key: &'static str,
}

/// It manages the organisation, and runs the cluster.
pub(crate) const SHOP: Account = Account { name: "shop", id: "111122223333", key: "AKIDSHOP" };
/// It administers IPAM for all accounts.
pub(crate) const NETWORK: Account =
    Account { name: "network", id: "444455556666", key: "AKIDNETWORK" };

/// Two accounts and two Regions without a VPC.
pub(crate) fn topology(netns: &str) -> Value {
    json!({
        "region": HOME, "regions": [AWAY], "account": SHOP.id,
        "organization": {"members": [NETWORK.id]}, "access_keys": {NETWORK.key: NETWORK.id},
        "fabric_netns": netns,
    })
}

/// What is made together with a resource.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tags<'a> {
    /// Such as `vpc`.
    pub(crate) of: &'a str,
    /// Keys and values.
    pub(crate) tags: &'a [(&'a str, &'a str)],
}

/// The organisation while its story is told.
#[derive(Debug)]
pub(crate) struct Organization<'a> {
    pub(crate) story: &'a Story,
    pub(crate) sim: &'a Sim,
    directory: &'a Path,
}

impl<'a> Organization<'a> {
    /// Writes the planner's profiles, one for each account, to `directory`.
    pub(crate) fn new(story: &'a Story, sim: &'a Sim, directory: &'a Path) -> Result<Self> {
        let profile = |Account { name, key, .. }| {
            format!("[{name}]\naws_access_key_id = {key}\naws_secret_access_key = any\n")
        };
        let profiles = [SHOP, NETWORK].map(profile).concat();
        let organization = Self { story, sim, directory };
        std::fs::write(organization.file("credentials"), profiles).context("write the profiles")?;
        Ok(organization)
    }

    /// A file of the planner's.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Calls EC2 and shows the call. Gives the answer's XML.
    pub(crate) async fn call(
        &self,
        account: Account,
        region: &str,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Result<String> {
        self.call_with(account, region, action, parameters, Tags { of: "", tags: &[] }).await
    }

    /// The same with tags.
    pub(crate) async fn call_with(
        &self,
        account: Account,
        region: &str,
        action: &str,
        parameters: &[(&str, &str)],
        Tags { of, tags }: Tags<'_>,
    ) -> Result<String> {
        let shown = parameters.iter().chain(tags).map(|(name, value)| format!(" {name}={value}"));
        let shown: String = shown.collect();
        self.story.note(&format!("{:<7} {region}  {action}{shown}", account.name));
        let tag = |(index, (key, value)): (usize, &(&str, &str))| {
            let tag = format!("TagSpecification.1.Tag.{}", index + 1);
            [
                (format!("{tag}.Key"), (*key).to_owned()),
                (format!("{tag}.Value"), (*value).to_owned()),
            ]
        };
        let tags: Vec<_> = tags.iter().enumerate().flat_map(tag).collect();
        let mut all = parameters.to_vec();
        if !tags.is_empty() {
            all.push(("TagSpecification.1.ResourceType", of));
        }
        all.extend(tags.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        self.sim.ec2_in(account.key, region, action, &all).await
    }

    /// Runs `tidepool ipam` over both accounts and Regions, and shows the command.
    pub(crate) async fn ipam(&self, arguments: &[&str]) -> Result<Answer> {
        let accounts = [SHOP, NETWORK].map(|account| ["--profile", account.name]).concat();
        let regions = [HOME, AWAY].map(|region| ["--region", region]).concat();
        let all = [arguments, &accounts, &regions].concat();
        self.story.note(&format!("$ tidepool ipam {}", all.join(" ")));
        self.tidepool(&all).await
    }

    /// Runs `tidepool ipam` without a word.
    pub(crate) async fn tidepool(&self, arguments: &[&str]) -> Result<Answer> {
        let mut command = Command::new(program("tidepool")?);
        command
            .arg("ipam")
            .args(arguments)
            .current_dir(self.directory)
            .env_clear()
            .env("AWS_SHARED_CREDENTIALS_FILE", self.file("credentials"))
            .env("AWS_ENDPOINT_URL_EC2", self.sim.url());
        let out = command.output().await.with_context(|| format!("run {command:?}"))?;
        let code = out.status.code().context("a signal ended tidepool")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let errors = text(&out.stderr);
        ensure!(errors.is_empty(), "tidepool ipam {arguments:?} ended with {code}: {errors}");
        Ok(Answer { code, text: text(&out.stdout) })
    }
}

/// What `tidepool ipam` has said.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its exit code.
    pub(crate) code: i32,
    /// Its standard output.
    pub(crate) text: String,
}

impl Answer {
    /// Prints it, without the lines on calls that the simulator does not serve.
    pub(crate) fn show(&self) {
        let (gaps, rest): (Vec<&str>, Vec<&str>) =
            self.text.lines().map(str::trim_end).partition(|line| line.starts_with("not read: "));
        println!("{}", rest.join("\n"));
        println!("({} lines `not read`: vpc-sim serves no addresses and no peerings)", gaps.len());
    }

    /// The answer to `--output json`.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("{}: {}", self.code, self.text))
    }
}
