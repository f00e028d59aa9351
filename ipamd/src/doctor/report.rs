//! What `ipamd doctor` has found, as text for people and as JSON.

use command_line::printable;
use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Weight {
    /// Something is not as it should be. The command fails.
    Difference,
    /// It may be as somebody wants it, or may pass within a minute.
    Notice,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(super) weight: Weight,
    /// Stable, for machines.
    pub(super) code: String,
    /// The thing that it is about: an address, an ENI, a file, a setting.
    #[serde(rename = "where")]
    pub(super) subject: String,
    /// What was found.
    #[serde(rename = "what")]
    pub(super) found: String,
    /// What to do.
    #[serde(rename = "do")]
    pub(super) advice: String,
}

impl Finding {
    /// Something that is not as it should be.
    pub(super) fn difference(
        code: &str,
        subject: impl Into<String>,
        found: impl Into<String>,
        advice: &str,
    ) -> Self {
        let (subject, found) = (subject.into(), found.into());
        let (code, advice) = (code.to_owned(), advice.to_owned());
        Self { weight: Weight::Difference, code, subject, found, advice }
    }

    /// Something that may be all right.
    pub(super) fn notice(
        code: &str,
        subject: impl Into<String>,
        found: impl Into<String>,
        advice: &str,
    ) -> Self {
        Self { weight: Weight::Notice, ..Self::difference(code, subject, found, advice) }
    }
}

/// A comparison that could not be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NotCompared {
    pub(super) what: &'static str,
    pub(super) why: String,
}

/// All findings. JSON has these keys; keys are added, never renamed or removed.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(super) findings: Vec<Finding>,
    /// The comparisons that were made.
    pub(super) compared: Vec<&'static str>,
    pub(super) not_compared: Vec<NotCompared>,
}

impl Report {
    /// Notes the findings of a comparison, or why it could not be made.
    pub(super) fn note(&mut self, what: &'static str, findings: Result<Vec<Finding>, String>) {
        match findings {
            Ok(findings) => {
                self.compared.push(what);
                self.findings.extend(findings);
            }
            Err(why) => self.not_compared.push(NotCompared { what, why }),
        }
    }

    /// The number of findings that make the command fail.
    pub(super) fn n_differences(&self) -> usize {
        self.findings.iter().filter(|finding| finding.weight == Weight::Difference).count()
    }

    /// One paragraph for each finding, the differences first; then what was compared.
    pub(super) fn text(&self) -> String {
        let mut lines = Vec::new();
        for weight in [Weight::Difference, Weight::Notice] {
            for finding in self.findings.iter().filter(|finding| finding.weight == weight) {
                let Finding { code, subject, found, advice, .. } = finding;
                let name = match weight {
                    Weight::Difference => "DIFFERENCE",
                    Weight::Notice => "NOTICE",
                };
                lines.push(format!("{name} {code}: {subject}"));
                lines.push(format!("  found: {found}"));
                lines.push(format!("  do: {advice}"));
            }
        }
        lines.push(format!("compared: {}", self.compared.join("; ")));
        for NotCompared { what, why } in &self.not_compared {
            lines.push(format!("not compared: {what}: {why}"));
        }
        let n_notices = self.findings.len() - self.n_differences();
        lines.push(format!("differences: {}, notices: {n_notices}", self.n_differences()));
        lines.iter().map(|line| printable(line) + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        let notice = Finding::notice("foreign_rule", "100: lookup 7", "it counts first", "look");
        let lost = Finding::difference("lost_address", "10.0.0.7\n", "gone", "delete the pod");
        report.note("rules", Ok(vec![notice]));
        report.note("record and EC2", Ok(vec![lost]));
        report.note("metadata service", Err("no answer within 5 s".to_owned()));
        report
    }

    #[test]
    fn differences_come_first_and_gaps_are_named() {
        expect_test::expect![[r"
            DIFFERENCE lost_address: 10.0.0.7\n
              found: gone
              do: delete the pod
            NOTICE foreign_rule: 100: lookup 7
              found: it counts first
              do: look
            compared: rules; record and EC2
            not compared: metadata service: no answer within 5 s
            differences: 1, notices: 1
        "]]
        .assert_eq(&report().text());
    }

    #[test]
    fn json_keys_stay_the_same() {
        let json = serde_json::to_value(report()).unwrap();
        let keys = |value: &serde_json::Value| {
            let keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            keys.join(" ")
        };
        assert_eq!(keys(&json), "compared findings not_compared");
        assert_eq!(keys(&json["findings"][0]), "code do weight what where");
        assert_eq!(keys(&json["not_compared"][0]), "what why");
        assert_eq!(json["findings"][1]["weight"], "difference");
    }
}
