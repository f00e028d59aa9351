//! docs/iam.md grants what the code calls, neither more nor less, in each of its notations.

use std::collections::BTreeSet;

use serde_json::Value;

use super::documents::table;
use super::{rust, text_of, texts};

/// The code block of `text` in this notation.
fn block<'a>(text: &'a str, notation: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("```{notation}\n")).unwrap();
    rest.split("```").next().unwrap()
}

/// The actions in a text: `ec2:` and the name up to the quotation mark. Condition keys are left out.
fn actions(text: &str) -> BTreeSet<String> {
    const KEYS: [&str; 2] = ["CreateAction", "Vpc"];
    let after = text.split("ec2:").skip(1);
    let names = after.map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap());
    names.filter(|name| !name.is_empty() && !KEYS.contains(name)).map(str::to_owned).collect()
}

/// `describe_subnets` as EC2 and IAM write it.
fn camel(name: &str) -> String {
    let word = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    name.split('_').map(word).collect()
}

/// The operations of the SDK that files in `folder` call: `client.describe_subnets()`.
fn called(texts: &[(String, String)], folder: &str) -> BTreeSet<String> {
    let mut called = BTreeSet::new();
    for (_, text) in rust(texts).filter(|(path, _)| path.starts_with(folder)) {
        let code: String = text.split_whitespace().collect();
        let names = code.split("client.").skip(1).filter_map(|rest| rest.split_once("()"));
        let is_name =
            |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c));
        called.extend(names.map(|(name, _)| name).filter(is_name).map(camel));
        // EC2 checks it where an ENI gets tags with its creation.
        called.extend(code.contains("tag_specifications(").then(|| "CreateTags".to_owned()));
    }
    called
}

#[test]
fn policies_grant_exactly_the_calls_that_are_made() {
    let texts = texts();
    let document = text_of(&texts, "docs/iam.md");
    let called = called(&texts, "crates/aws/src/ec2");
    assert!(called.len() > 10 && called.contains("DescribeSubnets"), "{called:?}");
    let json: Value = serde_json::from_str(block(document, "json")).unwrap();
    let statements = json["Statement"].as_array().unwrap();
    assert!(statements.iter().all(|statement| statement["Effect"] == "Allow"));
    let granted: Vec<_> =
        statements.iter().map(|statement| statement["Action"].to_string()).collect();
    assert_eq!(actions(&granted.concat()), called, "the policy in JSON");
    for notation in ["hcl", "ts"] {
        assert_eq!(actions(block(document, notation)), called, "the policy in {notation}");
    }
    // The table comes before the first heading of its level.
    let with_heading = format!("\n## Table\n{document}");
    let rows = table(&with_heading, "## Table");
    let explained: String = rows.iter().map(|cells| cells[0]).collect();
    assert_eq!(actions(&explained), called, "the table says what each action is for");
}

#[test]
fn policy_of_the_desk_grants_the_reads_that_it_makes() {
    let texts = texts();
    let called = called(&texts, "crates/aws-inventory/src/");
    assert!(called.len() > 8 && called.contains("DescribeVpcs"), "{called:?}");
    let is_read = |action: &String| action.starts_with("Describe") || action.starts_with("Get");
    assert!(called.iter().all(is_read), "the desk changes nothing at EC2: {called:?}");
    let document = text_of(&texts, "docs/ipam.md");
    assert_eq!(actions(block(document, "json")), called, "the policy in docs/ipam.md");
}

#[test]
fn policy_of_apply_grants_what_it_makes_and_no_change() {
    let texts = texts();
    let called = called(&texts, "crates/aws-apply/src/");
    assert!(called.contains("CreateVpc"), "{called:?}");
    assert!(
        called
            .iter()
            .all(|action| ["Create", "Provision"].iter().any(|verb| action.starts_with(verb))),
        "{called:?}"
    );
    let document = text_of(&texts, "docs/ipam.md");
    let (_, after) = document.split_once("## A plan\n").unwrap();
    assert_eq!(actions(block(after, "json")), called, "the policy of --apply in docs/ipam.md");
}
