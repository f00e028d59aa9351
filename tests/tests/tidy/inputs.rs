//! Inputs from outside: docs/design/inputs.md lists each place that reads, with its bound.

use std::collections::BTreeSet;

use super::documents::{product_files, table};
use super::{text_of, texts};

const LIST: &str = "docs/design/inputs.md";

/// Calls by which bytes come in that others have written. A new way to read needs a line here.
const READS: &[&str] = &[
    "fs::read(",
    "read_to_end(",
    "read_to_string(",
    "read_exact(",
    "read_line(",
    "read_dir(",
    "fs::copy(",
    "io::copy(",
    "BufReader",
    "io::stdin(",
    "from_reader(",
    "env::var",
    "env::args",
    ".accept()",
    "UnixStream::connect(",
    "TcpStream::connect(",
    "Endpoint::from_shared(",
    "Client::from_conf(",
    "Client::builder(",
    "ClientBuilder::try_from(",
    "Socket::new(",
    "to_bytes(",
    "collect().await",
];

/// The reads that end only with their input. On the same line `take(…)` bounds them.
const TO_THE_END: &[&str] = &["fs::read(", "read_to_end(", "read_to_string(", "io::copy("];

/// What no node runs, and no user of a desk gives a file to.
const NOT_ON_A_NODE: &[&str] = &[
    "crates/address-plan/",
    "crates/ec2-api/",
    "crates/ec2-model/",
    "crates/kube-sim/",
    "crates/lab/",
    "crates/mangle/",
    "crates/oci-image/",
    "crates/vpc-sim/",
    "tests/",
];

/// The files that are listed, each with its bound.
fn listed(texts: &[(String, String)]) -> Vec<(&str, &str)> {
    let rows = table(text_of(texts, LIST), "## Rule");
    rows.iter().map(|cells| (cells[0].trim_matches('`'), cells[2])).collect()
}

/// Each line of the product's code that reads, without tests and comments: file, line.
fn reads<'a>(texts: &'a [(String, String)], calls: &[&str]) -> Vec<(&'a str, &'a str)> {
    let mut found = vec![];
    for path in product_files(texts) {
        if NOT_ON_A_NODE.iter().any(|folder| path.starts_with(folder)) || !path.ends_with(".rs") {
            continue;
        }
        let code = text_of(texts, path).split("#[cfg(test)]").next().unwrap();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let reading = lines.filter(|line| calls.iter().any(|call| line.contains(call)));
        found.extend(reading.map(|line| (path, line.trim())));
    }
    found
}

#[test]
fn every_read_is_on_the_list_of_inputs() {
    let texts = texts();
    let listed: BTreeSet<_> = listed(&texts).into_iter().map(|(path, _)| path).collect();
    let found = reads(&texts, READS);
    assert!(found.len() > 20, "hardly any read is found: {found:?}");
    let unlisted: Vec<_> = found.iter().filter(|(path, _)| !listed.contains(path)).collect();
    assert!(unlisted.is_empty(), "bound these reads, and give them a row in {LIST}: {unlisted:#?}");
    let reading: BTreeSet<_> = found.iter().map(|(path, _)| *path).collect();
    let idle: Vec<_> = listed.difference(&reading).collect();
    assert!(idle.is_empty(), "{LIST} lists files that read nothing: {idle:?}");
}

#[test]
fn no_file_is_read_to_an_end_without_a_bound() {
    let texts = texts();
    let listed = listed(&texts);
    let is_the_kernels = |file: &str| {
        let row = listed.iter().find(|(path, _)| *path == file);
        row.is_some_and(|(_, bound)| bound.starts_with("kernel: ") || bound.starts_with("only in "))
    };
    let unbounded: Vec<_> = reads(&texts, TO_THE_END)
        .into_iter()
        .filter(|(path, line)| !line.contains(".take(") && !is_the_kernels(path))
        .collect();
    assert!(unbounded.is_empty(), "bound these by take(…): {unbounded:#?}");
}
