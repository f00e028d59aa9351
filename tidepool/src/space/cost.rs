//! `tidepool ipam cost`: active addresses, and what they cost, now and with other targets.

use std::io::Write as _;

use address_space::cost::{Bill, Bounds, Count, Line, Prices, SOURCES, Usd, bill};
use address_space::inventory::Inventory;
use address_space::nodes;
use anyhow::Context as _;
use command_line::{Failure, Output, printable};
use serde::Serialize;

use super::audit::table::table;
use super::source::{PodCounts, Source};
use super::targets::{Held, WhatIf, what_if};

/// The most lines of a list in the table; `--output json` has all.
const MOST: usize = 20;

/// The arguments of `ipam cost`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    pods: PodCounts,
    /// The price of an active address in Amazon VPC IPAM, in dollars by the hour.
    #[arg(long, value_name = "USD", default_value_t = Prices::default().active_address)]
    active_address: Usd,
    /// The price of a public IPv4 address, in dollars by the hour.
    #[arg(long, value_name = "USD", default_value_t = Prices::default().public_address)]
    public_address: Usd,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Keys are added, never renamed or removed. Amounts are decimal numbers as texts, in dollars.
#[derive(Serialize)]
struct Report<'a> {
    prices_by_hour: Prices,
    /// Whether a pool of Amazon VPC IPAM was read. Without one, active addresses cost nothing today.
    has_pools: bool,
    bill: &'a Bill,
    total: Priced,
    vpcs: Vec<PricedLine<'a>>,
    clusters: Vec<PricedLine<'a>>,
    nodes: Vec<PricedLine<'a>>,
    targets: Vec<PricedTargets<'a>>,
}

#[derive(Serialize)]
struct Priced {
    active: Bounds<u64>,
    usd_by_hour: Bounds<Usd>,
    usd_by_month: Bounds<Usd>,
}

#[derive(Serialize)]
struct PricedLine<'a> {
    whose: &'a str,
    #[serde(flatten)]
    priced: Priced,
}

#[derive(Serialize)]
struct PricedTargets<'a> {
    #[serde(flatten)]
    targets: &'a WhatIf,
    #[serde(flatten)]
    priced: Priced,
}

/// Reads and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let pods = arguments.pods.read()?;
    let inventory = arguments.source.inventory()?;
    let prices = Prices {
        active_address: arguments.active_address,
        public_address: arguments.public_address,
    };
    let bill = bill(&inventory);
    let targets = what_if(&nodes(&inventory, &pods));
    let text = match arguments.output {
        Output::Table => render(&inventory, &bill, &targets, prices),
        Output::Json => {
            let report = report(&inventory, &bill, &targets, prices);
            serde_json::to_string_pretty(&report).context("write the bill as JSON")? + "\n"
        }
    };
    std::io::stdout().write_all(text.as_bytes()).context("print the bill")?;
    Ok(())
}

fn priced(count: Count, prices: Prices) -> Priced {
    Priced {
        active: count.active(),
        usd_by_hour: count.hour(prices),
        usd_by_month: count.month(prices),
    }
}

/// What nodes hold, as a bill counts it. Other targets change no public address.
fn count(held: Held) -> Count {
    let Held { own, single, prefixes, ipv6_prefixes } = held;
    Count { addresses: own + single, prefixes, ipv6_prefixes, public: 0 }
}

fn report<'a>(
    inventory: &Inventory,
    bill: &'a Bill,
    targets: &'a [WhatIf],
    prices: Prices,
) -> Report<'a> {
    let lines = |lines: &'a [Line]| {
        let line =
            |line: &'a Line| PricedLine { whose: &line.whose, priced: priced(line.count, prices) };
        lines.iter().map(line).collect()
    };
    let target = |targets: &'a WhatIf| PricedTargets {
        targets,
        priced: priced(count(targets.held), prices),
    };
    Report {
        prices_by_hour: prices,
        has_pools: !inventory.pools.is_empty(),
        total: priced(bill.total, prices),
        vpcs: lines(&bill.vpcs),
        clusters: lines(&bill.clusters),
        nodes: lines(&bill.nodes),
        targets: targets.iter().map(target).collect(),
        bill,
    }
}

fn render(inventory: &Inventory, bill: &Bill, targets: &[WhatIf], prices: Prices) -> String {
    let total = [Line { whose: "all".to_owned(), count: bill.total }];
    let tables = [
        list("ALL", &total, prices),
        list("VPC", &bill.vpcs, prices),
        list("CLUSTER", &bill.clusters, prices),
        list("NODE", &bill.nodes, prices),
        targets_table(targets, prices),
    ];
    let mut paragraphs: Vec<_> = tables.into_iter().flatten().collect();
    let mut lines = vec![];
    if bill.unused_public > 0 {
        lines.push(format!("{} public addresses are in use by nobody", bill.unused_public));
    }
    lines.push(
        "a range is between a prefix that counts as one address and one that counts as sixteen: AWS does not say"
            .to_owned(),
    );
    if inventory.pools.is_empty() {
        lines.push(
            "no pool of Amazon VPC IPAM was read: without its advanced tier, only public addresses cost anything"
                .to_owned(),
        );
    }
    let own = [prices.active_address, prices.public_address];
    for (price, (what, built_in, source, date)) in own.into_iter().zip(SOURCES) {
        let source = match built_in.parse() == Ok(price) {
            true => format!("{source}, {date}"),
            false => "from the command line".to_owned(),
        };
        lines.push(format!("{what}: {price} USD/h ({source})"));
    }
    lines.extend(inventory.gaps.iter().map(ToString::to_string));
    let lines: Vec<_> = lines.iter().map(|line| printable(line)).collect();
    paragraphs.push(lines.join("\n"));
    paragraphs.join("\n\n") + "\n"
}

fn list(title: &str, lines: &[Line], prices: Prices) -> Option<String> {
    let rows = lines.iter().take(MOST).map(|line| {
        let Line { whose, count } = line;
        [
            whose.clone(),
            count.addresses.to_string(),
            count.prefixes.to_string(),
            count.public.to_string(),
            count.active().to_string(),
            count.hour(prices).to_string(),
            count.month(prices).to_string(),
        ]
    });
    table([title, "SINGLE", "PREFIXES", "PUBLIC", "ACTIVE", "USD/HOUR", "USD/MONTH"], rows)
}

fn targets_table(targets: &[WhatIf], prices: Prices) -> Option<String> {
    let rows = targets.iter().map(|row| {
        let count = count(row.held);
        [
            row.cluster.clone(),
            row.targets.clone(),
            row.nodes.to_string(),
            count.active().to_string(),
            count.month(prices).to_string(),
            row.unplaced_pods.to_string(),
        ]
    });
    table(["CLUSTER", "TARGETS", "NODES", "ACTIVE", "USD/MONTH", "PODS WITHOUT"], rows)
}
