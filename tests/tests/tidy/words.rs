//! Names and phrases that a stranger understands at first reading.

use std::collections::BTreeSet;

use super::{rust, tests_of, texts};

/// A longer name does not fit on one line of a test report.
const TEST_NAME_CHARACTERS: usize = 60;

/// Phrases that hide the subject of a sentence, and private metaphors. CONTRIBUTING.md has more, and
/// says what to write instead.
const PHRASES: &[&str] = &[
    concat!("of", " which"),
    concat!("of", " whose"),
    concat!("by", " whose word"),
    concat!("hear", "say"),
    concat!("be", "lied"),
];

/// The lines that may have them, by their beginning: the table of words itself, and quotations.
const QUOTING: &[(&str, &str)] = &[
    ("CONTRIBUTING.md", concat!("| of", " which, of")),
    ("CONTRIBUTING.md", concat!("| hear", "say |")),
    ("CONTRIBUTING.md", "Before: "),
];

#[test]
fn test_names_are_short() {
    let texts = texts();
    let names = rust(&texts).flat_map(|(path, text)| tests_of(text).map(move |name| (path, name)));
    let long: BTreeSet<_> =
        names.filter(|(_, name)| name.chars().count() > TEST_NAME_CHARACTERS).collect();
    assert!(
        long.is_empty(),
        "shorten to {TEST_NAME_CHARACTERS} characters, here and in the documents: {long:#?}"
    );
}

/// A line without indentation and the marks of comments, quotations and lists, in lower case.
fn sentence(line: &str) -> String {
    let marks = ["///", "//!", "//", ">", "*", "-"];
    let line = line.trim();
    let text = marks.iter().find_map(|mark| line.strip_prefix(mark)).unwrap_or(line);
    text.trim().to_lowercase()
}

/// Where a phrase begins in a text, as words of their own.
fn find(text: &str, phrase: &str) -> Option<usize> {
    text.match_indices(phrase).map(|(at, _)| at).find(|at| {
        let before = text[..*at].chars().next_back();
        let after = text[at + phrase.len()..].chars().next();
        ![before, after].iter().flatten().any(|neighbour| neighbour.is_alphanumeric())
    })
}

/// The first line of each phrase in a text. A phrase may continue on the next line.
fn phrases_in<'a>(path: &str, text: &'a str) -> Vec<(usize, &'a str)> {
    let may_quote = |line: &str| {
        QUOTING.iter().any(|(quoting, start)| *quoting == path && line.starts_with(start))
    };
    let lines: Vec<&str> =
        text.lines().map(|line| if may_quote(line) { "" } else { line }).collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let this = sentence(line);
        let next = lines.get(index + 1).map_or(String::new(), |line| sentence(line));
        let both = format!("{this} {next}");
        let starts = PHRASES.iter().filter_map(|phrase| find(&both, phrase));
        if starts.min().is_some_and(|start| start <= this.len()) {
            found.push((index + 1, *line));
        }
    }
    found
}

#[test]
fn no_text_has_a_phrase_without_a_subject() {
    let texts = texts();
    let prose = texts
        .iter()
        .filter(|(path, _)| [".rs", ".md", ".proto"].iter().any(|end| path.ends_with(end)));
    let mut found = Vec::new();
    for (path, text) in prose {
        let lines = phrases_in(path, text);
        found
            .extend(lines.iter().map(|(number, line)| format!("{path}:{number}: {}", line.trim())));
    }
    assert!(
        found.is_empty(),
        "a phrase of {PHRASES:?}: write two sentences, see the table in CONTRIBUTING.md: {found:#?}"
    );
}

#[test]
fn phrase_is_found_across_lines_and_as_words() {
    let [phrase, proof] = [concat!("of", " which"), concat!("proof", " which")];
    let (first, second) = phrase.split_once(' ').unwrap();
    let text = format!("/// Two ENIs, one {first}\n/// {second} is new.\n/// A {proof} holds.\n");
    let numbers: Vec<_> = phrases_in("a.rs", &text).iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1]);
}

#[test]
fn each_line_that_may_quote_exists() {
    let texts = texts();
    for (path, start) in QUOTING {
        let (_, text) = texts.iter().find(|(name, _)| name == path).unwrap();
        let exists = text.lines().any(|line| line.starts_with(start));
        assert!(exists, "{path} has no line {start:?}: remove it from QUOTING");
    }
}
