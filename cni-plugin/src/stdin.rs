//! The configuration on stdin, bounded in size and time.

use std::io::{self, Read};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cni::{CniError, ErrorCode};

/// Of a configuration. The list of a GC is the longest that runtimes send: about 260 bytes for each
/// container.
const MIB: u64 = 4;

/// How long the runtime may take to write it. Runtimes write it at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads all of stdin.
///
/// # Errors
///
/// Code 5 if it cannot be read or is not closed in time, code 6 if it is too long.
pub(crate) fn read() -> Result<Vec<u8>, CniError> {
    read_from(io::stdin(), PATIENCE)
}

fn read_from(source: impl Read + Send + 'static, patience: Duration) -> Result<Vec<u8>, CniError> {
    let unreadable = |why: String| CniError::new(ErrorCode::Io, "cannot read stdin", why);
    let (sender, receiver) = mpsc::sync_channel(1);
    // A thread of its own, since a read cannot be given up. It ends with the process at the latest.
    thread::Builder::new()
        .spawn(move || {
            let mut bytes = Vec::new();
            let read = source.take((MIB << 20) + 1).read_to_end(&mut bytes);
            // If nobody waits any more, the process is about to end.
            let _ = sender.send(read.map(|_| bytes));
        })
        .map_err(|error| unreadable(error.to_string()))?;
    let bytes = receiver
        .recv_timeout(patience)
        .map_err(|_| unreadable(format!("it was not closed within {patience:?}")))?
        .map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > MIB << 20 {
        let details = format!("stdin has more than {MIB} MiB");
        return Err(CniError::new(
            ErrorCode::Decode,
            "cannot decode the network configuration",
            details,
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn stdin_is_read_to_its_end_or_bound() {
        let read = |n_bytes: usize| {
            read_from(io::Cursor::new(vec![b' '; n_bytes]), Duration::MAX).map(|bytes| bytes.len())
        };
        assert_eq!(read(0), Ok(0));
        assert_eq!(read(4 << 20), Ok(4 << 20));
        assert_eq!(read((4 << 20) + 1).unwrap_err().code, ErrorCode::Decode);
        let endless = read_from(io::repeat(b' '), Duration::MAX);
        assert_eq!(endless.unwrap_err().code, ErrorCode::Decode);
    }

    #[test]
    fn stdin_that_stays_open_is_given_up() {
        let (_open, source) = UnixStream::pair().unwrap();
        let error = read_from(source, Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.code, ErrorCode::Io);
        assert!(error.details.contains("not closed within 10ms"), "{error}");
    }
}
