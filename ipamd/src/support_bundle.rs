//! `ipamd support-bundle`: one archive with all that somebody elsewhere needs to find a fault, without secrets and of a
//! bounded size.

mod archive;
mod contents;
mod secrets;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use command_line::{Failure, printable};
use ipam::time::Timestamp;

use self::contents::Part;
use self::secrets::Secrets;
use crate::doctor;

/// The arguments of `support-bundle`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to write the archive (tar.gz), with mode 0600. `-` writes it to standard output.
    #[arg(value_name = "FILE")]
    to: PathBuf,
    /// A log to take the end of, beside the daemon's and the plugin's own.
    #[arg(long = "log", value_name = "FILE")]
    logs: Vec<PathBuf>,
    #[command(flatten)]
    places: doctor::Places,
}

/// Gathers everything, hides secrets, writes the archive, and lists on standard error what is in it. What cannot be had
/// is named in the archive and in the list.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { to, logs, places } = arguments;
    let (settings, variables, faults) = doctor::settings_of_process()?;
    let secrets = Secrets::of(std::env::vars_os(), &settings);
    let parts = contents::gather(places, logs, &settings, &variables, faults)?;
    let mut parts: Vec<_> = parts.into_iter().map(|part| part.without(&secrets)).collect();
    let about = about(&parts, now());
    parts.insert(0, Part::whole("about.txt", about.clone()));
    archive::write(&parts, to)?;
    eprint!("{}", about.lines().map(|line| printable(line) + "\n").collect::<String>());
    Ok(())
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// What the bundle has, what it lacks and what is hidden.
fn about(parts: &[Part], now: Timestamp) -> String {
    let mut text = format!(
        "support bundle of ipamd {}, made at {}\n\
         hidden: user names and passwords in URLs, tokens, keys, and values of variables that hold secrets\n\
         shown: names and addresses of pods, ids of AWS resources, log lines; read it before you pass it on\n",
        proto::VERSION,
        now.to_rfc3339()
    );
    for part in parts {
        text.push_str(&part.summary());
        text.push('\n');
    }
    text
}
