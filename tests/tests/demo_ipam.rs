//! `make demo-ipam` does what it tells, and docs/ipam.md tells the same.

use anyhow::{Context, Result, ensure};
use tests::process::output;
use tokio::process::Command;

const CHAPTER: &str = "\n## From the first pool to pods\n";

/// Whether a line of the document shows this line. `…` stands for anything.
fn shows(document: &str, line: &str) -> bool {
    let mut parts = document.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[test]
fn ellipsis_stands_for_anything() {
    let check = |document, line, expect| assert_eq!(shows(document, line), expect, "{document}");
    check("a vpc-… has …", "a vpc-0 has 10.0.0.0/8", true);
    check("a vpc-… has 10", "a vpc-0 has 10", true);
    check("a vpc-… has 10", "a vpc-0 has 100", false);
    check("a vpc-… of … has 10", "a vpc-0 has 10", false);
    check("vpc", "vpc", true);
    check("vpc", "vpc-0", false);
}

#[tokio::test(flavor = "multi_thread")]
async fn story_holds_and_is_that_of_the_documents() -> Result<()> {
    let told = output(&mut Command::new(env!("CARGO_BIN_EXE_demo-ipam"))).await?;
    let document = include_str!("../../docs/ipam.md");
    let (_, chapter) = document.split_once(CHAPTER).context("the chapter is missing")?;
    let chapter = chapter.split("\n## ").next().unwrap_or_default();
    let mut lines = told.lines().map(str::trim_end);
    let mut shown = 0;
    for block in chapter.split("```").skip(1).step_by(2) {
        for expect in block.lines().filter(|line| !line.is_empty()) {
            let found = lines.any(|line| shows(expect, line));
            ensure!(found, "docs/ipam.md shows, but not at this place: {expect:?}\n{told}");
            shown += 1;
        }
    }
    ensure!(shown > 20, "the chapter shows {shown} lines");
    Ok(())
}
