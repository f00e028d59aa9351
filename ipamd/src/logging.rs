//! Log lines as JSON, to the target of the settings.

use std::io;
use std::sync::Mutex;

use log_file::{Bounds, LogFile};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::settings::{LogTarget, SettingError, Settings};

/// Of a log file: 100 MiB in all.
const BOUNDS: Bounds = Bounds { file_bytes: 20 * 1024 * 1024, n_old: 4 };
/// The crates to which the level applies. All others log only warnings.
const OURS: [&str; 5] = ["agent", "aws", "datapath", "ipam", "ipamd"];
/// The prefix of the SDK's crates, which a filter for `aws` would match too.
const SDK: &str = "aws_";

/// Starts to log, once in a process.
///
/// # Errors
///
/// If the file cannot be opened.
pub(crate) fn start(settings: &Settings) -> Result<(), SettingError> {
    match &settings.log_target {
        LogTarget::Stdout => init(settings.log_level, io::stdout),
        LogTarget::Stderr => init(settings.log_level, io::stderr),
        LogTarget::File(path) => {
            let file = LogFile::open(path, BOUNDS).map_err(|fault| SettingError {
                variable: "AWS_VPC_K8S_CNI_LOG_FILE",
                value: path.display().to_string(),
                allowed: format!("cannot be appended to ({fault}); stdout and stderr can"),
            })?;
            init(settings.log_level, Mutex::new(file));
        }
    }
    Ok(())
}

fn init(level: Level, writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) {
    let others = level.min(Level::WARN);
    let ours = OURS.map(|name| (name, level));
    let filter = Targets::new().with_default(others).with_targets(ours).with_target(SDK, others);
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(writer);
    tracing_subscriber::registry().with(filter).with(lines).init();
}
