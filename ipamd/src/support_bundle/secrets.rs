//! What must not leave the node: passwords, tokens and keys. Values that this process knows are hidden wherever they
//! occur; beyond these, whatever has the form of a secret. It hides too much rather than too little.

use std::collections::BTreeSet;
use std::ffi::OsString;

use settings::Settings;

/// What stands for a secret.
const HIDDEN: &str = "***";
/// Words by which a name says that its value is secret, in lower case.
const NAMES: [&str; 10] = [
    "authorization",
    "access_key",
    "accesskey",
    "credential",
    // OTEL_EXPORTER_OTLP_HEADERS has keys.
    "otlp_headers",
    "passphrase",
    "passwd",
    "password",
    "secret",
    "token",
];
/// A shorter value would be hidden in half of all words.
const SHORTEST: usize = 4;

/// The secrets that this process knows.
#[derive(Debug)]
pub(super) struct Secrets(BTreeSet<String>);

impl Secrets {
    /// The values of variables that hold secrets, and the user names and passwords of all URLs in variables and settings.
    pub(super) fn of(
        variables: impl Iterator<Item = (OsString, OsString)>,
        settings: &Settings,
    ) -> Self {
        let mut known = BTreeSet::new();
        let proxies = [&settings.http_proxy, &settings.https_proxy].into_iter().flatten();
        let mut values: Vec<String> = proxies.map(|url| url.with_password().to_owned()).collect();
        for (name, value) in variables {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy().into_owned());
            // Variables such as AWS_WEB_IDENTITY_TOKEN_FILE name a file, whose path is no secret.
            let is_path = name.ends_with("_FILE") || value.starts_with('/');
            if has_name(&name) && !is_path {
                known.insert(value.clone());
            }
            values.push(value);
        }
        for value in &values {
            if let Some((_, user)) = user_info(value) {
                known.extend(user.split(':').chain([user]).map(str::to_owned));
            }
        }
        known.retain(|secret| secret.len() >= SHORTEST);
        Self(known)
    }

    /// `text` without secrets.
    pub(super) fn hidden(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // The longest first, so that no part of it is left.
        let mut known: Vec<_> = self.0.iter().collect();
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        for secret in known {
            text = text.replace(secret.as_str(), HIDDEN);
        }
        let mut is_key = false;
        let lines = text.split_inclusive('\n').map(|line| {
            // The lines of a private key: from BEGIN … PRIVATE KEY to END.
            is_key |= line.contains("PRIVATE KEY-----");
            let hidden = if is_key { format!("{HIDDEN}\n") } else { line_hidden(line) };
            is_key &= !line.contains("-----END");
            hidden
        });
        lines.collect()
    }
}

fn has_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|secret| name.contains(secret))
}

/// One line: first what names say, then what words look like.
fn line_hidden(line: &str) -> String {
    let line = values_hidden(line);
    line.split_inclusive(is_separator).map(word_hidden).collect()
}

fn is_separator(character: char) -> bool {
    character.is_whitespace() || matches!(character, '"' | '\'' | ',' | '<' | '>' | '(' | ')')
}

/// A word with the character after it.
fn word_hidden(word: &str) -> String {
    let end = word.trim_end_matches(is_separator).len();
    let (bare, separator) = word.split_at(end);
    if let Some((before, user)) = user_info(bare) {
        let after = &bare[before.len() + user.len()..];
        return format!("{before}{HIDDEN}{after}{separator}");
    }
    let is_key_id = ["AKIA", "ASIA"].iter().any(|start| {
        let rest = bare.strip_prefix(start).unwrap_or_default();
        let id = rest.get(..16).unwrap_or_default();
        !id.is_empty() && id.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
    });
    let is_jwt = bare.starts_with("eyJ") && bare.matches('.').count() >= 2;
    if is_key_id || is_jwt { format!("{HIDDEN}{separator}") } else { word.to_owned() }
}

/// The part up to the user's name in a URL, and user and password.
fn user_info(text: &str) -> Option<(&str, &str)> {
    let start = text.find("://").map(|at| at + 3)?;
    // A password may have slashes that somebody has not encoded.
    let end = text[start..].rfind('@')? + start;
    Some((&text[..start], &text[start..end]))
}

/// `line` without the values that follow a secret's name and `=` or `:`, as in `token=…`, `"password": "…"` and
/// `Authorization: Bearer …`.
fn values_hidden(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let mut hidden = String::with_capacity(line.len());
    let mut rest = 0;
    while let Some(name) = next_name(&lower, rest) {
        let Some((start, end)) = value_after(line, name) else {
            hidden.push_str(&line[rest..name]);
            rest = name;
            continue;
        };
        hidden.push_str(&line[rest..start]);
        hidden.push_str(HIDDEN);
        rest = end;
    }
    hidden.push_str(&line[rest..]);
    hidden
}

/// The end of the first word at or after `from` that has a secret's name in it.
fn next_name(lower: &str, from: usize) -> Option<usize> {
    let rest = &lower[from..];
    let found = NAMES.iter().filter_map(|name| Some(rest.find(name)? + name.len()));
    let end = from + found.min()?;
    let more = lower[end..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'));
    Some(more.map_or(lower.len(), |more| end + more))
}

/// The value after a name that ends at `name`, if there is one: up to the closing quotation mark, else up to the next
/// separator. A header has its scheme before the value.
fn value_after(line: &str, name: usize) -> Option<(usize, usize)> {
    let after = &line[name..];
    let quoted = after.trim_start_matches(['"', '\\']);
    let sign = quoted.trim_start().strip_prefix(['=', ':'])?;
    let value = sign.trim_start_matches([' ', '\t', '\\']);
    let (value, is_end): (&str, fn(char) -> bool) = match value.strip_prefix('"') {
        Some(value) => (value, |c| c == '"' || c == '\\'),
        None => (value, |c| is_separator(c) || c == '&' || c == '}'),
    };
    let scheme =
        ["Bearer ", "Basic ", "AWS4-HMAC-SHA256 "].iter().find(|it| value.starts_with(**it));
    let value = scheme.map_or(value, |scheme| &value[scheme.len()..]);
    let start = line.len() - value.len();
    let end = value.find(is_end).map_or(line.len(), |end| start + end);
    (end > start).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use settings::{InForce, Variables};

    use super::*;

    fn secrets(variables: &[(&str, &str)]) -> Secrets {
        let settings = InForce::read(Variables::default()).unwrap().settings;
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        Secrets::of(variables, &settings)
    }

    #[test]
    fn values_of_secret_variables_are_hidden_wherever_they_occur() {
        let secrets = secrets(&[
            ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG"),
            ("HTTPS_PROXY", "http://me:pl4nted@proxy:3128"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/token"),
            ("GREETING", "hello"),
        ]);
        let text = "said wJalrXUtnFEMI/K7MDENG and pl4nted to hello; see /var/run/secrets/token\n";
        assert_eq!(secrets.hidden(text), "said *** and *** to hello; see /var/run/secrets/token\n");
    }

    #[test]
    fn whatever_looks_like_a_secret_is_hidden() {
        let secrets = secrets(&[]);
        for (text, expect) in [
            ("via http://u:p/q@h:1 now", "via http://***@h:1 now"),
            (r#"{"proxy":"https://u:p@h"}"#, r#"{"proxy":"https://***@h"}"#),
            ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
            (r#"{"password": "a b", "n": 1}"#, r#"{"password": "***", "n": 1}"#),
            (r#"\"secret\":\"x\","#, r#"\"secret\":\"***\","#),
            ("X-Amz-Security-Token=abc&Action=Y", "X-Amz-Security-Token=***&Action=Y"),
            ("client_token=abc token", "client_token=*** token"),
            ("key AKIAIOSFODNN7EXAMPLE!", "key ***"),
            ("key AKIAIOSFODNN7EXAMPLE, x", "key ***, x"),
            ("jwt eyJhbGciOi.eyJzdWIi.sig", "jwt ***"),
            ("a token bucket of 10.0.0.1", "a token bucket of 10.0.0.1"),
            ("tidepool_tokens{action=\"x\"} 5", "tidepool_tokens{action=\"x\"} 5"),
        ] {
            assert_eq!(secrets.hidden(text), expect);
        }
        let key = "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb\n";
        assert_eq!(secrets.hidden(key), "a\n***\n***\n***\nb\n");
    }
}
