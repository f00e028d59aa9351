//! Reads recorded arrivals from a file.
//!
//! The header is `arrival_s,lifetime_s`; each further line is a pod. `arrival_s` is the time of its
//! creation in seconds since any moment. `lifetime_s` is its life in seconds from its address on,
//! and is empty for a pod that stays. Fractions are allowed. The lines may have any order.

use std::time::Duration;

use super::{Trace, TraceAction, TraceStep};

const HEADER: &str = "arrival_s,lifetime_s";

/// Why a file of arrivals cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// The first line is not the header.
    #[error("the first line is {0:?}, expected {HEADER:?}")]
    Header(String),
    /// A line does not have two numbers.
    #[error("line {line}: {text:?} is not two numbers of seconds, the second may be empty")]
    Line {
        /// Counts from 1.
        line: usize,
        /// The line.
        text: String,
    },
}

/// The trace of a file. It begins with the first arrival.
///
/// # Errors
///
/// [`CsvError`] for the first bad line.
pub fn parse_csv(text: &str) -> Result<Trace, CsvError> {
    let mut lines = text.lines().zip(1..).map(|(text, line)| (text.trim(), line));
    let header = lines.next().map_or("", |(text, _)| text);
    if header != HEADER {
        return Err(CsvError::Header(header.to_owned()));
    }
    let rows = lines.filter(|(text, _)| !text.is_empty());
    let parse = |(text, line): (&str, usize)| {
        parse_row(text).ok_or_else(|| CsvError::Line { line, text: text.to_owned() })
    };
    let mut trace = rows.map(parse).collect::<Result<Trace, _>>()?;
    trace.sort_by_key(|step| step.at);
    let first = trace.first().map_or(Duration::ZERO, |step| step.at);
    trace.iter_mut().for_each(|step| step.at -= first);
    Ok(trace)
}

fn parse_row(text: &str) -> Option<TraceStep> {
    let (arrival, lifetime) = text.split_once(',')?;
    let life = match lifetime.trim() {
        "" => None,
        lifetime => Some(seconds(lifetime)?),
    };
    Some(TraceStep { at: seconds(arrival)?, action: TraceAction::Create { pods: 1, life } })
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.trim().parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_sorted_and_start_at_zero() {
        let text = "arrival_s,lifetime_s\n1700000002.5,60\n1700000000,\n\n1700000002,0.25\n";
        let found: Vec<_> = parse_csv(text)
            .unwrap()
            .into_iter()
            .map(|TraceStep { at, action }| match action {
                TraceAction::Create { pods: 1, life } => {
                    (at.as_millis(), life.map(|l| l.as_millis()))
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(found, [(0, None), (2000, Some(250)), (2500, Some(60_000))]);
        assert_eq!(parse_csv("arrival_s,lifetime_s\n"), Ok(Vec::new()));
    }

    #[test]
    fn csv_error_names_line() {
        let check = |text: &str, expect: &str| {
            assert_eq!(parse_csv(text).unwrap_err().to_string(), expect);
        };
        check("", r#"the first line is "", expected "arrival_s,lifetime_s""#);
        check("at,for\n1,2\n", r#"the first line is "at,for", expected "arrival_s,lifetime_s""#);
        for line in ["-1,5", "1", "1,x", "1,-2", "inf,2"] {
            let text = format!("arrival_s,lifetime_s\n0,1\n{line}\n");
            check(
                &text,
                &format!("line 3: {line:?} is not two numbers of seconds, the second may be empty"),
            );
        }
    }
}
