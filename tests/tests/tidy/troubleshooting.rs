//! docs/troubleshooting.md has a way from each code of a pod without an address.

use std::collections::BTreeSet;

use super::documents::table;
use super::{text_of, texts};

#[test]
fn troubleshooting_has_a_section_for_each_code() {
    let texts = texts();
    let rows = table(text_of(&texts, "docs/errors.md"), "## The daemon has no address");
    let names =
        rows.iter().map(|cells| cells[1].trim_matches('`')).filter(|name| *name != "any other");
    let expected: BTreeSet<_> = names.collect();
    assert!(expected.len() > 10, "{expected:?}");
    let document = text_of(&texts, "docs/troubleshooting.md");
    let headings = document.lines().filter_map(|line| line.strip_prefix("### "));
    let words = headings.flat_map(|heading| heading.split(' '));
    let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_uppercase() || "_2".contains(c));
    let found: BTreeSet<_> = words.filter(is_name).collect();
    assert_eq!(found, expected);
}
