//! Documents agree with the tree: the list of files, the architecture's table, links, named tests.

use std::collections::{BTreeMap, BTreeSet};

use super::{LAYERS, root, rust, tests_of, text_of, texts};

/// ARCHITECTURE.md is read whole, so it stays short.
const ARCHITECTURE_LINES: usize = 150;

/// A question of docs/files.md is read at a glance.
const QUESTION_WORDS: usize = 15;

/// The modules that only tests have, `#[cfg(test)] mod NAME;`, as paths without `.rs`.
fn test_modules(texts: &[(String, String)]) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for (path, text) in rust(texts) {
        let (folder, file) = path.rsplit_once('/').unwrap();
        let children = match file {
            "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
            _ => path.trim_end_matches(".rs").to_owned(),
        };
        for after in text.split("#[cfg(test)]\n").skip(1) {
            let item = after.lines().find(|line| !line.trim_start().starts_with("#["));
            let name = item.and_then(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
            modules.extend(name.map(|name| format!("{children}/{name}")));
        }
    }
    modules
}

/// The files that docs/files.md must list: the product's Rust files and its contract. Left out are
/// tests, benches, examples and build scripts.
pub(crate) fn product_files(texts: &[(String, String)]) -> BTreeSet<&str> {
    let tests = test_modules(texts);
    let is_product = |path: &str| {
        let mut folders = path.split('/').rev().skip(1);
        let module = path.trim_end_matches(".rs");
        let mut modules = module.match_indices('/').map(|(end, _)| &module[..end]).chain([module]);
        !path.ends_with("/build.rs")
            && !folders.any(|folder| ["tests", "benches", "examples"].contains(&folder))
            && !modules.any(|module| tests.contains(module))
    };
    let sources = texts.iter().map(|(path, _)| path.as_str());
    let sources = sources.filter(|path| path.ends_with(".rs") || path.ends_with(".proto"));
    sources.filter(|path| is_product(path)).collect()
}

/// The rows of the first table of a section, each as its cells. The table's head is left out.
pub(crate) fn table<'a>(text: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let section = section(text, heading).unwrap_or_else(|| panic!("no section {heading:?}"));
    let table = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = table.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The text from a heading to the next one of the same level.
fn section<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("\n{heading}\n"))?;
    Some(rest.split("\n## ").next().unwrap())
}

/// The texts within backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The tests that a document names: lower-case words in backticks, but for our packages.
fn named_tests(text: &str) -> Vec<&str> {
    let is_name = |word: &&str| {
        let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        word.chars().all(is_part) && LAYERS.iter().all(|(package, _)| package != word)
    };
    quoted(text).filter(is_name).collect()
}

#[test]
fn files_document_lists_each_file_with_one_question() {
    let texts = texts();
    let mut listed = BTreeSet::new();
    let mut questions = BTreeMap::new();
    let mut package = "";
    for line in text_of(&texts, "docs/files.md").lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            package = heading.trim_matches('`');
        }
        let Some(row) = line.strip_prefix("| `") else { continue };
        let (path, question) = row.trim_end_matches(" |").split_once("` | ").unwrap();
        assert!(
            path.starts_with(&format!("{package}/")),
            "docs/files.md: move {path} out of the table of {package}"
        );
        assert!(listed.insert(path), "docs/files.md: {path} has two rows: remove one");
        assert!(question.ends_with('?'), "docs/files.md: {path}: make it a question: {question}");
        let n_words = question.split_whitespace().count();
        assert!(
            n_words <= QUESTION_WORDS,
            "docs/files.md: {path}: shorten to {QUESTION_WORDS} words, it has {n_words}: {question}"
        );
        if let Some(other) = questions.insert(question, path) {
            panic!("docs/files.md: {path} and {other} answer one question: tell them apart");
        }
    }
    let product = product_files(&texts);
    let missing: Vec<_> = product.difference(&listed).collect();
    assert!(missing.is_empty(), "docs/files.md: add a row, the question it answers: {missing:#?}");
    let gone: Vec<_> = listed.difference(&product).collect();
    assert!(gone.is_empty(), "docs/files.md: remove the rows, no such product file: {gone:#?}");
}

#[test]
fn architecture_document_stays_short() {
    let n_lines = text_of(&texts(), "ARCHITECTURE.md").lines().count();
    assert!(
        n_lines <= ARCHITECTURE_LINES,
        "ARCHITECTURE.md has {n_lines} lines, {ARCHITECTURE_LINES} are allowed: move details to docs/design"
    );
}

#[test]
fn architecture_table_equals_the_layers() {
    let texts = texts();
    let rows = table(text_of(&texts, "ARCHITECTURE.md"), "## The packages");
    let mut documented = BTreeMap::new();
    for row in rows {
        let [folder, _, uses, _] = row[..] else {
            panic!("ARCHITECTURE.md: a package's row has 4 cells: {row:?}")
        };
        let folder = folder.trim_matches('`');
        if root().join(folder).join("Cargo.toml").exists() {
            let package = folder.rsplit('/').next().unwrap();
            documented.insert(package, quoted(uses).collect::<BTreeSet<_>>());
        }
    }
    for (package, allowed) in LAYERS {
        let uses = documented.remove(package);
        assert_eq!(
            uses,
            Some(allowed.iter().copied().collect()),
            "ARCHITECTURE.md, table of packages, `{package}` (left) must equal LAYERS in tidy.rs (right): change one"
        );
    }
    assert!(documented.is_empty(), "ARCHITECTURE.md lists what LAYERS lacks: {documented:?}");
}

#[test]
fn links_between_documents_lead_to_files() {
    for (path, text) in texts().into_iter().filter(|(path, _)| path.ends_with(".md")) {
        let folder = root().join(&path).parent().unwrap().to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(folder.join(file).exists(), "{path} links to {file}, which does not exist");
        }
    }
}

/// Where documents name the tests that hold a rule: (document, rule, names).
fn claims(texts: &[(String, String)]) -> Vec<(&str, &str, Vec<&str>)> {
    let mut claims = Vec::new();
    let hazards = text_of(texts, "docs/hazards.md").lines();
    let hazards = hazards.filter(|row| row.starts_with("| ") && !row.starts_with("| Hazard"));
    for row in hazards {
        let held_by = row.trim_end_matches(" |").rsplit_once(" | ").unwrap().1;
        claims.push(("docs/hazards.md", row, named_tests(held_by)));
    }
    for row in table(text_of(texts, "ARCHITECTURE.md"), "## What must stay true") {
        claims.push(("ARCHITECTURE.md", row[1], named_tests(row[2])));
    }
    for (path, text) in texts.iter().filter(|(path, _)| path.starts_with("docs/design/")) {
        let Some(tests) = section(text, "## Tests") else {
            let index = ["docs/design/README.md", "docs/design/testing.md"];
            assert!(
                index.contains(&path.as_str()),
                "{path}: add a section \"## Tests\": what holds its rule?"
            );
            continue;
        };
        claims.push((path, "## Tests", named_tests(tests)));
    }
    claims
}

#[test]
fn every_test_that_documents_name_exists() {
    let texts = texts();
    let tests: BTreeSet<&str> = rust(&texts).flat_map(|(_, text)| tests_of(text)).collect();
    let claims = claims(&texts);
    assert!(claims.len() > 60, "only {} places name tests: read the documents anew", claims.len());
    for (path, rule, named) in claims {
        assert!(!named.is_empty(), "{path}: name a test that holds this: {rule}");
        let missing: Vec<_> = named.iter().filter(|name| !tests.contains(**name)).collect();
        assert!(
            missing.is_empty(),
            "{path}: there is no test {missing:?}, correct the name: {rule}"
        );
    }
}
