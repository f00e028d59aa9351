//! The voice of programs that say what they do while they do it: coloured where the terminal allows.

#![expect(clippy::print_stdout, reason = "it speaks to whoever has started the program")]

use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Tells on stdout what happens.
#[derive(Debug)]
pub struct Story {
    colour: bool,
    start: Instant,
}

impl Default for Story {
    fn default() -> Self {
        Self::new()
    }
}

impl Story {
    /// Begins now.
    #[must_use]
    pub fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, start: Instant::now() }
    }

    /// How long it has been told.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// What comes next.
    pub fn act(&self, text: &str) {
        println!("\n{}", self.paint("1;36", &format!("▌ {text}")));
    }

    /// Something worth knowing.
    pub fn note(&self, text: &str) {
        println!("  {}", self.paint("2", text));
    }

    /// Something that was tried and holds.
    pub fn good(&self, text: &str) {
        println!("  {} {text}", self.paint("32", "✓"));
    }

    /// Something that was tried and does not hold.
    pub fn bad(&self, text: &str) {
        println!("  {} {text}", self.paint("31", "✗"));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
