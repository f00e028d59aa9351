//! The registry as text: for help, and for `docs/settings.md`.

use std::fmt::Write as _;

use crate::registry::{ALL, DefaultValue, Support, TakesEffect};

/// The width that [`help`] has for the meaning of a setting.
const HELP_WIDTH: usize = 92;

/// Every setting that does something, for the end of a command's help.
#[must_use]
pub fn help() -> String {
    let mut text =
        "Settings, as environment variables (*: a change takes effect at SIGHUP):\n".to_owned();
    for setting in ALL.iter().filter(|setting| setting.support == Support::Full) {
        let mark = match setting.takes_effect {
            TakesEffect::Live => "*",
            TakesEffect::AtStart => "",
        };
        let default = match setting.default {
            DefaultValue::Value(value) => value,
            DefaultValue::Unset => "unset",
            DefaultValue::Depends(what) => what,
        };
        write!(text, "\n  {}{mark} [{}]", setting.name, default.replace('`', ""))
            .expect("a String takes everything");
        let mut width = HELP_WIDTH;
        for word in setting.meaning.replace('`', "").split(' ') {
            if width + word.len() >= HELP_WIDTH {
                text.push_str("\n     ");
                width = 5;
            }
            text.extend([" ", word]);
            width += 1 + word.len();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::registry::Group;

    /// The rows of `group`, as `docs/settings.md` has them.
    fn table(group: Group) -> String {
        let mut text =
            "| variable | default | takes effect | meaning |\n|---|---|---|---|\n".to_owned();
        for setting in ALL.iter().filter(|setting| setting.group == group) {
            let default = match setting.default {
                DefaultValue::Value(value) => format!("`{value}`"),
                DefaultValue::Unset => "unset".to_owned(),
                DefaultValue::Depends(what) => what.to_owned(),
            };
            let takes_effect = match setting.takes_effect {
                TakesEffect::Live => "live",
                TakesEffect::AtStart => "at the start",
            };
            writeln!(
                text,
                "| `{}` | {default} | {takes_effect} | {} |",
                setting.name, setting.meaning
            )
            .unwrap();
        }
        text
    }

    /// The settings that are not built, by their effect.
    fn not_built() -> String {
        let mut text = "| variable | default | built | meaning |\n|---|---|---|---|\n".to_owned();
        let not_built = ALL.iter().filter(|it| it.group == Group::NotBuilt);
        for setting in not_built {
            let default = match setting.default {
                DefaultValue::Value(value) => format!("`{value}`"),
                DefaultValue::Unset => "unset".to_owned(),
                DefaultValue::Depends(what) => what.to_owned(),
            };
            let built = match setting.support {
                Support::Full => unreachable!(),
                Support::OnlyBoolean(value) => format!("only `{value}`"),
                Support::NoEffect { .. } => "nothing; a value is a warning".to_owned(),
                Support::Ignored => unreachable!(),
            };
            writeln!(text, "| `{}` | {default} | {built} | {} |", setting.name, setting.meaning)
                .unwrap();
        }
        text
    }

    /// The settings that the daemon has no use for, with what to do instead.
    fn elsewhere() -> String {
        let mut text = "| variable | meaning | a value |\n|---|---|---|\n".to_owned();
        for setting in ALL.iter().filter(|setting| setting.group == Group::Elsewhere) {
            let then = match setting.support {
                Support::NoEffect { unless: [], why } => format!("has no effect {why}"),
                Support::NoEffect { unless, why } => {
                    format!("other than `{}` has no effect {why}", unless.join("`, `"))
                }
                Support::Ignored => "asks for nothing that is missing".to_owned(),
                Support::Full | Support::OnlyBoolean(_) => unreachable!(),
            };
            writeln!(text, "| `{}` | {} | {then} |", setting.name, setting.meaning).unwrap();
        }
        text
    }

    /// `document` with what is between the two marks of `name` replaced.
    fn fill(document: &str, name: &str, table: &str) -> String {
        let (begin, end) = (format!("<!-- settings: {name} -->\n"), "<!-- end -->\n");
        let (before, rest) = document.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
        let (_, after) = rest.split_once(end).unwrap_or_else(|| panic!("no {end} after {begin}"));
        format!("{before}{begin}\n{table}\n{end}{after}")
    }

    /// `UPDATE_EXPECT=1` rewrites the tables.
    #[test]
    fn settings_document_lists_every_setting() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
        let mut document = std::fs::read_to_string(&path).unwrap();
        for (name, group) in [
            ("pool", Group::Pool),
            ("family", Group::Family),
            ("nat", Group::Nat),
            ("enis", Group::Enis),
            ("cluster", Group::Cluster),
            ("files", Group::Files),
            ("traces", Group::Traces),
        ] {
            document = fill(&document, name, &table(group));
        }
        document = fill(&document, "not built", &not_built());
        document = fill(&document, "elsewhere", &elsewhere());
        expect_test::expect_file![path].assert_eq(&document);
    }

    #[test]
    fn help_lists_what_is_built() {
        let help = help();
        for line in [
            "  WARM_IP_TARGET* [0]",
            "  MAX_ENI* [unset]",
            "  CLUSTER_NAME [unset]",
            "  ENABLE_IPv4 [the opposite of ENABLE_IPv6]",
            "      Pods have IPv4 addresses",
        ] {
            assert!(help.lines().any(|found| found == line), "{line}\n{help}");
        }
        assert!(!help.contains("ENABLE_POD_ENI"), "{help}");
        assert!(help.lines().all(|line| line.len() <= 100), "{help}");
    }
}
