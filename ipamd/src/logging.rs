//! Log lines as JSON, to the target that the settings name.

use std::io;
use std::sync::Mutex;

use log_file::{Bounds, LogFile};
use settings::registry::AWS_VPC_K8S_CNI_LOG_FILE;
use settings::{LogLevel, LogTarget, SettingError, Settings};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Of a log file: 100 MiB in all.
const BOUNDS: Bounds = Bounds { file_bytes: 20 * 1024 * 1024, n_old: 4 };
/// The crates to which the level applies. All others log only warnings and errors.
const OURS: [&str; 5] = ["agent", "aws", "datapath", "ipam", "ipamd"];
/// The prefix of the SDK's crates. Without a filter of their own, the one for `aws` would match them.
const SDK: &str = "aws_";

/// Starts to log. Call it once in a process.
///
/// # Errors
///
/// If the file cannot be opened.
pub(crate) fn start(settings: &Settings) -> Result<(), SettingError> {
    let level = match settings.log_level {
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Info => Level::INFO,
        LogLevel::Warn => Level::WARN,
        LogLevel::Error => Level::ERROR,
    };
    match &settings.log_target {
        LogTarget::Stdout => init(level, io::stdout),
        LogTarget::Stderr => init(level, io::stderr),
        LogTarget::File(path) => {
            let file = LogFile::open(path, BOUNDS).map_err(|fault| SettingError {
                variable: AWS_VPC_K8S_CNI_LOG_FILE.name,
                value: path.display().to_string(),
                allowed: format!("cannot be appended to ({fault}); stdout and stderr can"),
            })?;
            init(level, Mutex::new(file));
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
