//! The form in which a command prints.

/// `--output`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs; keys are added, never renamed.
    Json,
}
