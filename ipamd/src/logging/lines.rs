//! Log lines as text that a terminal may get. JSON escapes what a pod's name or an answer of EC2 may contain; text does
//! not, so one event could look like two, or rewrite the screen.

use std::io::{self, Write};

use command_line::printable;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// Writes each event as one printable line.
#[derive(Debug)]
pub(super) struct PrintableLines<M>(pub(super) M);

/// The writer of one event, which comes in one write.
#[derive(Debug)]
pub(super) struct PrintableLine<W>(W);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for PrintableLines<M> {
    type Writer = PrintableLine<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        PrintableLine(self.0.make_writer())
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        PrintableLine(self.0.make_writer_for(metadata))
    }
}

impl<W: Write> Write for PrintableLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        self.0.write_all((printable(line) + "\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_with_escapes_is_one_harmless_line() {
        let mut line = PrintableLine(Vec::new());
        line.write_all(b"INFO pod=\"a\nERROR \x1b[2Jforged\"\n").unwrap();
        assert_eq!(line.0, b"INFO pod=\"a\\nERROR \\u{1b}[2Jforged\"\n");
    }
}
