//! Log lines as JSON or text, to the target that the settings name, from a level on that may change. Lines in a file go to standard output too, since
//! `kubectl logs` shows only that.

mod lines;

use std::any::Any;
use std::io;
use std::panic::{self, PanicHookInfo};
use std::sync::Mutex;

use log_file::{Bounds, LogFile};
use settings::registry::AWS_VPC_K8S_CNI_LOG_FILE;
use settings::{LogFormat, LogLevel, LogTarget, SettingError, Settings};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::MakeWriterExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry};

use self::lines::PrintableLines;

/// Of a log file: 100 MiB in all.
const BOUNDS: Bounds = Bounds { file_bytes: 20 * 1024 * 1024, n_old: 4 };
/// The crates to which the level applies. All others log only warnings and errors.
const OURS: [&str; 6] = ["agent", "aws", "datapath", "ipam", "ipamd", "otlp"];
/// The prefix of kube's crates. They warn at each attempt; `kubernetes` says each cause once.
const KUBE: &str = "kube";
/// The prefix of the SDK's crates. Without a filter of their own, the one for `aws` would match them.
const SDK: &str = "aws_";

/// Changes the level from which on lines are logged.
#[derive(Debug, Clone)]
pub(crate) struct LevelSwitch(Handle<Targets, Registry>);

impl LevelSwitch {
    /// A switch and the filter that it changes.
    pub(crate) fn new(level: LogLevel) -> (Self, reload::Layer<Targets, Registry>) {
        let (filter, handle) = reload::Layer::new(targets(level));
        (Self(handle), filter)
    }

    /// Logs lines of `level` and above from now on.
    pub(crate) fn set(&self, level: LogLevel) {
        // It fails only if nothing is logged any more.
        let _ = self.0.reload(targets(level));
    }
}

/// Starts to log, also the panics of every thread. Call it once in a process.
///
/// # Errors
///
/// If the file cannot be opened, and a full or read-only disk is not the cause.
pub(crate) fn start(settings: &Settings) -> Result<LevelSwitch, SettingError> {
    let (switch, filter) = LevelSwitch::new(settings.log_level);
    let format = settings.log_format;
    match &settings.log_target {
        LogTarget::Stdout => init(filter, format, io::stdout),
        LogTarget::Stderr => init(filter, format, io::stderr),
        LogTarget::File(path) => match LogFile::open(path, BOUNDS) {
            Ok(file) => init(filter, format, Mutex::new(file).and(io::stdout)),
            Err(fault) if is_of_the_disk(&fault) => {
                init(filter, format, io::stdout);
                let file = path.display();
                tracing::error!(%file, %fault, "log file cannot be opened; stdout has all lines");
            }
            Err(fault) => {
                return Err(SettingError {
                    variable: AWS_VPC_K8S_CNI_LOG_FILE.name,
                    value: path.display().to_string(),
                    allowed: format!("cannot be appended to ({fault}); stdout and stderr can"),
                });
            }
        },
    }
    panic::set_hook(Box::new(log_panic));
    Ok(switch)
}

/// Whether the setting may be right, and the disk takes no new file at present.
fn is_of_the_disk(fault: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(fault.kind(), QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

/// The default hook would print to standard error alone, which no log file has.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string);
    let thread = std::thread::current().name().map(str::to_owned);
    tracing::error!(why = panic_text(panic.payload()), at, thread, "a part of ipamd has panicked");
}

/// The message of a panic.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref().copied()).unwrap_or("no message")
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Info => Level::INFO,
        LogLevel::Warn => Level::WARN,
        LogLevel::Error => Level::ERROR,
    };
    let others = level.min(Level::WARN);
    let ours = OURS.map(|name| (name, level));
    let targets = Targets::new().with_default(others).with_targets(ours).with_target(SDK, others);
    targets.with_target(KUBE, level.min(Level::ERROR))
}

fn init(
    filter: reload::Layer<Targets, Registry>,
    format: LogFormat,
    writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
) {
    let lines = tracing_subscriber::fmt::layer();
    let lines = match format {
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(writer)
            .boxed(),
        LogFormat::Text => lines.with_writer(PrintableLines(writer)).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
}
