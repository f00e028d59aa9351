//! `ipamd import-checkpoint` and `export-checkpoint`, and what the daemon takes over at its start: the
//! node's move from amazon-vpc-cni-k8s and back.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use agent::checkpoint::{self, Allocation};
use agent::migration::{self, Place, Sorted};
use anyhow::Context as _;
use aws::{Imds, ShownEni};
use comfy_table::{Table, presets};
use ipam::record::Record;
use ipam::time::Timestamp;
use serde::Serialize;
use settings::Settings;
use tracing::{info, warn};

use crate::exit::{Exit, Failure};
use crate::facts::until_learnt;
use crate::output::Output;

/// Of `import-checkpoint`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArguments {
    /// The checkpoint.
    file: PathBuf,
    /// Change nothing: it is the daemon that takes over, at its start.
    #[arg(long, required = true)]
    dry_run: bool,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Of `export-checkpoint`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArguments {
    /// Where to write the checkpoint, with no ipamd running; the record is out of use then. `-` prints
    /// it and changes nothing.
    file: PathBuf,
}

/// The record to start with: that of amazon-vpc-cni-k8s where there is none of ours and it left one,
/// else an empty one. Its file stays as it is.
///
/// # Errors
///
/// If there is one that cannot be trusted. To start without it would give its pods' addresses away.
pub(crate) async fn inherit(settings: &Settings, now: Timestamp) -> anyhow::Result<Record> {
    let file = &settings.checkpoint;
    if migration::has_record(&settings.state_directory) {
        return Ok(Record::default());
    }
    let advice = "the pods of amazon-vpc-cni-k8s cannot be taken over; mend its checkpoint, or remove \
                  it if none of its pods runs here any more";
    let Some(allocations) = migration::read(file).context(advice)? else {
        return Ok(Record::default());
    };
    let sorted = migration::sort(allocations, &migration::links().await?);
    let imds = Imds::connect();
    let enis = until_learnt("the ENIs' addresses", async || imds.enis().await).await;
    let primary = enis.iter().find(|eni| (eni.device_index, eni.network_card) == (0, 0));
    let primary = primary.context("the metadata service does not show the primary ENI")?;
    let place = |address| place(&enis, primary, address);
    let record = migration::record(&sorted, place, now).context(advice)?;
    let file = file.display();
    info!(%file, pods = sorted.living.len(), gone = sorted.dead.len(), "checkpoint taken over");
    for several in sorted.living.iter().filter(|allocation| allocation.interfaces > 1) {
        warn!(key = %several.key, cards = several.interfaces, "only the address on card 0 is known");
    }
    migration::bury(&sorted.dead).await;
    Ok(record)
}

/// The ENI that has `address`. One that the metadata service does not know yet, or any more, is put on
/// the primary ENI; whether EC2 has it at all is found out when that is read.
fn place(enis: &[ShownEni], primary: &ShownEni, address: IpAddr) -> Place {
    let has = |eni: &&ShownEni| eni.blocks.iter().any(|block| block.contains(address));
    let found = enis.iter().find(has).unwrap_or_else(|| {
        warn!(%address, "a pod's address is on no ENI that the metadata service shows");
        primary
    });
    let ShownEni { id, device_index, network_card, blocks: _ } = found;
    Place { eni: id.clone(), device_index: *device_index, network_card: *network_card }
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
    for (word, Allocation { key, address, namespace, pod, .. }) in worded(sorted) {
        table.add_row([
            if pod.is_empty() { "-".to_owned() } else { format!("{namespace}/{pod}") },
            address.to_string(),
            key.container.chars().take(12).collect(),
            key.ifname.clone(),
            word.to_owned(),
        ]);
    }
    let Sorted { living, dead } = sorted;
    let sums = format!(
        "{} pods would be taken over; {} addresses of pods that have gone would rest",
        living.len(),
        dead.len()
    );
    match living.is_empty() && dead.is_empty() {
        true => sums + "\n",
        false => format!("{table}\n\n{sums}\n"),
    }
}

/// Each allocation with whether its pod's link is there; a nameless pod's cannot be looked for.
fn worded(sorted: &Sorted) -> impl Iterator<Item = (&'static str, &Allocation)> {
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
    network: &'a str,
    container_id: &'a str,
    ifname: &'a str,
    address: IpAddr,
    /// Nanoseconds since the Unix epoch.
    since_ns: i64,
    /// `there`, `unknown` (it would be taken over all the same) or `gone`.
    link: &'a str,
}

fn json(sorted: &Sorted) -> serde_json::Result<String> {
    let entry = |(link, found): (&'static str, &'_ Allocation)| {
        serde_json::to_value(Entry {
            namespace: &found.namespace,
            name: &found.pod,
            network: &found.key.network,
            container_id: &found.key.container,
            ifname: &found.key.ifname,
            address: found.address,
            since_ns: found.since_ns,
            link,
        })
    };
    let entries: Vec<_> = worded(sorted).map(entry).collect::<Result<_, _>>()?;
    Ok(serde_json::to_string_pretty(&serde_json::json!({ "allocations": entries }))? + "\n")
}

/// Writes our record in the incumbent's format.
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
        None => return Err(no_record(&directory)),
    }
    Ok(())
}

fn no_record(directory: &Path) -> Failure {
    Failure::new(Exit::NoRecord, format!("there is no record in {}", directory.display()))
}
