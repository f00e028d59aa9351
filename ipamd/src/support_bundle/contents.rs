//! What goes into the bundle, each part within its bound.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use agent::error_chain;
use agent::examine::{self, KernelState};
use command_line::Failure;
use proto::v1::{SubnetsRequest, ViewRequest};
use settings::{LogTarget, Settings, Variables};

use super::secrets::Secrets;
use crate::doctor::{self, Finding, Places};
use crate::status::json;
use crate::{asking, check_config, subnets};

/// The largest part in bytes: a node with some hundred pods has a tenth of that.
const LARGEST: usize = 4 * 1024 * 1024;
/// The bytes of a log or a record that are taken, from its end.
const TAIL: u64 = 2 * 1024 * 1024;
/// The daemon answers a scrape within milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One file of the bundle.
#[derive(Debug)]
pub(super) struct Part {
    /// Its path in the archive.
    pub(super) name: String,
    /// Its text, or why there is none.
    pub(super) content: Result<String, String>,
    /// Whether only a part of the source is in it.
    is_cut: bool,
}

impl Part {
    /// A part that has all of its source, up to the bound.
    pub(super) fn whole(name: &str, text: String) -> Self {
        Self::of(name, Ok(text))
    }

    fn of(name: &str, content: Result<String, String>) -> Self {
        let is_cut = content.as_ref().is_ok_and(|text| text.len() > LARGEST);
        let content = content.map(|mut text| {
            text.truncate(text.floor_char_boundary(LARGEST));
            text
        });
        Self { name: name.to_owned(), content, is_cut }
    }

    /// The end of a file.
    fn tail(name: &str, path: &Path) -> Self {
        match tail(path) {
            Ok((text, is_cut)) => Self { name: name.to_owned(), content: Ok(text), is_cut },
            Err(fault) => Self::of(name, Err(format!("{}: {fault}", path.display()))),
        }
    }

    /// The part without secrets.
    pub(super) fn without(self, secrets: &Secrets) -> Self {
        let hide = |text: String| secrets.hidden(&text);
        Self { content: self.content.map(hide).map_err(hide), ..self }
    }

    /// One line for people.
    pub(super) fn summary(&self) -> String {
        let Self { name, content, is_cut } = self;
        match content {
            Ok(text) => {
                let cut = if *is_cut { ", cut" } else { "" };
                format!("{name}: {} bytes{cut}", text.len())
            }
            Err(why) => format!("{name}: left out: {why}"),
        }
    }
}

/// All parts, whether or not a daemon answers. `faults` are those of the settings.
pub(super) fn gather(
    places: &Places,
    logs: &[PathBuf],
    settings: &Settings,
    variables: &Variables,
    faults: Vec<Finding>,
) -> Result<Vec<Part>, Failure> {
    let socket = places.socket.clone().unwrap_or_else(|| settings.socket.clone());
    let view = asking::ask(Some(&socket), async |mut client| client.view(ViewRequest {}).await);
    let view = view.map_err(|fault| fault.to_string());
    let subnets =
        asking::ask(Some(&socket), async |mut client| client.subnets(SubnetsRequest {}).await);
    let subnets = subnets.map_err(|fault| fault.to_string());
    let report = doctor::examine(places, settings, faults)?;
    let as_text = |json: serde_json::Result<String>| json.map_err(|fault| fault.to_string());
    let mut parts = vec![
        Part::of("status.json", view.and_then(|view| as_text(json::render(&view)))),
        Part::of("subnets.json", subnets.and_then(|reply| as_text(subnets::as_json(&reply)))),
        Part::of("doctor.json", as_text(json::pretty(&report))),
        Part::of("metrics.txt", metrics(settings)),
        Part::whole("settings.txt", format!("{}\n", check_config::settings_table(variables))),
    ];
    parts.extend(kernel()?);
    parts.push(Part::tail("record.jsonl", &settings.state_directory.join("tidepool.jsonl")));
    match doctor::conflist(places) {
        Some((path, log)) => {
            parts.push(Part::tail("conflist.json", &path));
            parts.push(plugin_log(log));
        }
        None => {
            parts.push(Part::of("conflist.json", Err("the plugin is in no conflist".to_owned())))
        }
    }
    parts.push(match &settings.log_target {
        LogTarget::File(path) => Part::tail("log/ipamd.log", path),
        LogTarget::Stdout | LogTarget::Stderr => Part::of(
            "log/ipamd.log",
            Err("the daemon logs to its container's output: see kubectl logs, and --log".to_owned()),
        ),
    });
    let further = logs.iter().enumerate();
    parts.extend(further.map(|(n, path)| Part::tail(&format!("log/further-{n}.log"), path)));
    Ok(parts)
}

/// The plugin's log, whose path is one of the host.
fn plugin_log(path: Option<PathBuf>) -> Part {
    const NAME: &str = "log/plugin.log";
    let Some(path) = path else {
        return Part::of(NAME, Err("the conflist names no pluginLogFile".to_owned()));
    };
    let in_container = Path::new("/host").join(path.strip_prefix("/").unwrap_or(&path));
    Part::tail(NAME, if in_container.is_file() { &in_container } else { &path })
}

fn kernel() -> Result<Vec<Part>, Failure> {
    let state = asking::runtime()?.block_on(examine::state());
    let state = state.map_err(|fault| error_chain(&fault));
    let part = |name: &str, lines: fn(&KernelState) -> &[String]| {
        let text = state.as_ref().map(|state| lines(state).join("\n") + "\n");
        Part::of(name, text.map_err(Clone::clone))
    };
    let mut parts = vec![
        part("kernel/links.txt", |state| &state.links),
        part("kernel/rules.txt", |state| &state.rules),
        part("kernel/routes.txt", |state| &state.routes),
        part("kernel/sysctls.txt", |state| &state.sysctls),
    ];
    for (name, family) in [("kernel/nft-ip.txt", "ip"), ("kernel/nft-ip6.txt", "ip6")] {
        parts.push(Part::of(name, nft(family)));
    }
    Ok(parts)
}

/// Our table as `nft` prints it. The program may be missing in a small image.
fn nft(family: &str) -> Result<String, String> {
    let mut command = Command::new("nft");
    command.args(["list", "table", family, "tidepool"]).stdin(Stdio::null());
    let out = command.output().map_err(|fault| format!("nft: {fault}"))?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        false => Err(first_line(&String::from_utf8_lossy(&out.stderr))),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

/// The daemon's metrics.
fn metrics(settings: &Settings) -> Result<String, String> {
    let port = settings.metrics_port.ok_or_else(|| "DISABLE_METRICS is set".to_owned())?;
    let answer = scrape(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let answer = answer.map_err(|fault| format!("port {port}: {fault}"))?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.ok_or_else(|| format!("port {port}: it does not speak HTTP"))
}

fn scrape(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(LARGEST as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last [`TAIL`] bytes of a file in whole lines, and whether that is not all of it.
fn tail(path: &Path) -> io::Result<(String, bool)> {
    // A FIFO would make this command wait.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut file = File::open(path)?;
    let n_skipped = file.metadata()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(n_skipped))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match n_skipped {
        0 => Ok((text, false)),
        _ => Ok((text.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned()), true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_file_is_cut_to_its_last_whole_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let line = "x".repeat(1023);
        let lines: String = (0..4096).map(|n| format!("{n:04}{}\n", &line[4..])).collect();
        std::fs::write(&path, &lines).unwrap();
        let part = Part::tail("log", &path);
        assert_eq!(part.summary(), "log: 2096128 bytes, cut");
        assert!(part.content.unwrap().starts_with("2049"), "the first whole line");
        assert!(Part::tail("log", directory.path()).summary().ends_with("not a regular file"));
    }

    #[test]
    fn large_text_is_cut_between_characters() {
        let part = Part::whole("status.json", "ü".repeat(LARGEST / 2) + "end");
        assert_eq!(part.summary(), format!("status.json: {LARGEST} bytes, cut"));
    }
}
