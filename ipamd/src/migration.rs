//! The node's move from amazon-vpc-cni-k8s and back: `ipamd import-checkpoint`, `export-checkpoint`,
//! `remove-nat`, and the daemon's start from the incumbent's checkpoint.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use agent::checkpoint::{self, Allocation};
use agent::migration::{self, Place, Sorted};
use anyhow::Context as _;
use aws::{Imds, NodeFacts, ShownEni};
use comfy_table::{Table, presets};
use command_line::{Exit, Failure, Output, printable};
use ipam::record::Record;
use ipam::time::Timestamp;
use serde::Serialize;
use settings::Settings;
use tracing::{info, warn};

use crate::facts::retry_until_answer;

/// The arguments of `import-checkpoint`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArguments {
    /// The checkpoint of amazon-vpc-cni-k8s.
    file: PathBuf,
    /// Change nothing. Required, since only the daemon takes pods over, at its start.
    #[arg(long, required = true)]
    dry_run: bool,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// The arguments of `export-checkpoint`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArguments {
    /// Where to write the checkpoint. No ipamd may run, and ipamd does not use its record afterwards.
    /// `-` prints the checkpoint and changes nothing.
    file: PathBuf,
    /// End with code 0 where there is no record, as the init container of another DaemonSet must.
    #[arg(long)]
    if_recorded: bool,
}

/// The record to start with. If ipamd has no record here and amazon-vpc-cni-k8s has left a checkpoint, it
/// is made from that; else it is empty. The checkpoint's file does not change.
///
/// # Errors
/// If there is a checkpoint that cannot be trusted. A start without it would give the addresses of its
/// pods to other pods.
pub(crate) async fn inherit(
    settings: &Settings,
    facts: &NodeFacts,
    now: Timestamp,
) -> anyhow::Result<Record> {
    let file = &settings.checkpoint;
    if migration::has_record(&settings.state_directory) {
        return Ok(Record::default());
    }
    let advice = "the pods of amazon-vpc-cni-k8s cannot be taken over; repair its checkpoint, or remove \
                  it if none of its pods runs here any more";
    let Some(allocations) = migration::read(file).context(advice)? else {
        return Ok(Record::default());
    };
    let sorted = migration::sort(allocations, &migration::links().await?);
    let imds = Imds::connect();
    let enis = retry_until_answer("the ENIs' addresses", async || imds.enis().await).await;
    let primary = enis.iter().find(|eni| eni.mac == facts.primary_mac);
    let primary = primary.context("the metadata service does not show the primary ENI")?;
    let place = |address| place(&enis, primary, address);
    let record = migration::record(&sorted, place, now).context(advice)?;
    let file = file.display();
    info!(%file, pods = sorted.living.len(), gone = sorted.dead.len(), "checkpoint taken over");
    for several in sorted.living.iter().filter(|allocation| allocation.interfaces > 1) {
        warn!(key = %several.key, cards = several.interfaces, "only the address on card 0 is known");
    }
    migration::remove_rules(&sorted.dead).await;
    Ok(record)
}

/// The ENI that has `address`. If the metadata service does not show the address, this is the primary
/// ENI; the first poll of EC2 finds out whether the address exists.
///
/// The primary ENI's place is 0 on card 0 for the kernel, whatever index EC2 shows.
fn place(enis: &[ShownEni], primary: &ShownEni, address: IpAddr) -> Place {
    let has = |eni: &&ShownEni| eni.blocks.iter().any(|block| block.contains(address));
    let found = enis.iter().find(has).unwrap_or_else(|| {
        warn!(%address, "metadata service shows a pod's address on no ENI");
        primary
    });
    let ShownEni { id, mac, device_index, network_card, .. } = found;
    let (device_index, network_card) = match *mac == primary.mac {
        true => (0, 0),
        false => (*device_index, *network_card),
    };
    Place { eni: id.clone(), device_index, network_card }
}

/// Prints what a daemon would take over from a checkpoint.
pub(crate) fn import(arguments: &ImportArguments) -> Result<(), Failure> {
    let ImportArguments { file, dry_run: _, output } = arguments;
    let found = migration::read(file).context("nothing can be taken over")?;
    let allocations = found.with_context(|| format!("there is no {}", file.display()))?;
    let sorted = migration::sort(allocations, &links()?);
    let text = match output {
        Output::Table => table(&sorted),
        Output::Json => json(&sorted).context("write the allocations as JSON")?,
    };
    print(&text)
}

fn links() -> anyhow::Result<BTreeSet<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(migration::links())
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).context("print the allocations")?;
    Ok(())
}

fn table(sorted: &Sorted) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "POD",
        "ADDRESS",
        "CONTAINER",
        "INTERFACE",
        "LINK",
    ]);
    for (link, Allocation { key, address, namespace, pod, .. }) in with_link_state(sorted) {
        table.add_row([
            if pod.is_empty() { "-".to_owned() } else { printable(&format!("{namespace}/{pod}")) },
            address.to_string(),
            printable(&key.container.chars().take(12).collect::<String>()),
            printable(&key.ifname),
            link.to_owned(),
        ]);
    }
    let Sorted { living, dead } = sorted;
    let sums = format!(
        "{} pods would be taken over; {} addresses of pods that have gone would cool down",
        living.len(),
        dead.len()
    );
    match living.is_empty() && dead.is_empty() {
        true => sums + "\n",
        false => format!("{table}\n\n{sums}\n"),
    }
}

/// Each allocation with the state of its pod's link. The link's name derives from the pod's name, so
/// the link of a pod without a name is `unknown`.
fn with_link_state(sorted: &Sorted) -> impl Iterator<Item = (&'static str, &Allocation)> {
    let unknown = |found: &Allocation| found.namespace.is_empty() || found.pod.is_empty();
    let living = sorted
        .living
        .iter()
        .map(move |found| (if unknown(found) { "unknown" } else { "there" }, found));
    living.chain(sorted.dead.iter().map(|found| ("gone", found)))
}

#[derive(Serialize)]
struct Entry<'a> {
    namespace: &'a str,
    name: &'a str,
    network: String,
    container_id: &'a str,
    ifname: &'a str,
    address: IpAddr,
    /// Nanoseconds since the Unix epoch.
    since_ns: i64,
    /// `there`, `unknown` (the daemon would take the pod over too) or `gone`.
    link: &'a str,
}

fn json(sorted: &Sorted) -> serde_json::Result<String> {
    let entry = |(link, found): (&'static str, &'_ Allocation)| {
        serde_json::to_value(Entry {
            namespace: &found.namespace,
            name: &found.pod,
            network: found.key.network.clone().into(),
            container_id: &found.key.container,
            ifname: &found.key.ifname,
            address: found.address,
            since_ns: found.since_ns,
            link,
        })
    };
    let entries: Vec<_> = with_link_state(sorted).map(entry).collect::<Result<_, _>>()?;
    Ok(serde_json::to_string_pretty(&serde_json::json!({ "allocations": entries }))? + "\n")
}

/// Writes the daemon's record in the incumbent's format.
pub(crate) fn export(arguments: &ExportArguments) -> Result<(), Failure> {
    let directory = settings::state_directory_of_process()?;
    let file = &arguments.file;
    if file == Path::new("-") {
        let record = migration::read_record(&directory)?;
        let record = record.ok_or_else(|| no_record(&directory))?;
        return print(&checkpoint::write(&migration::allocations(&record)));
    }
    match migration::hand_over(&directory, file)? {
        Some(n) => eprintln!("ipamd: {n} pods handed over to {}", file.display()),
        None if arguments.if_recorded => eprintln!("ipamd: {}", no_record(&directory)),
        None => return Err(no_record(&directory)),
    }
    Ok(())
}

/// Removes the table that ipamd has left.
pub(crate) fn remove_nat() -> Result<(), Failure> {
    let removed = migration::remove_nat(&settings::state_directory_of_process()?)?;
    eprintln!(
        "ipamd: {}",
        if removed { "table ip tidepool removed" } else { "there is no table ip tidepool" }
    );
    Ok(())
}

fn no_record(directory: &Path) -> Failure {
    Failure::new(Exit::NoRecord, format!("there is no record in {}", directory.display()))
}
