//! The configuration on stdin, bounded in size and time.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use cni::{CniError, ErrorCode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Of a configuration. The list of a GC is the longest that runtimes send: about 260 bytes for each
/// container.
const MIB: usize = 4;

/// How long the runtime may take to write it. Runtimes write it at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that are read at once. Nearly every configuration is shorter.
const PART: usize = 16 * 1024;

/// Reads all of stdin.
///
/// # Errors
///
/// Code 5 if it cannot be read or is not closed in time, code 6 if it is too long.
pub(crate) fn read() -> Result<Vec<u8>, CniError> {
    read_from(std::io::stdin().as_fd(), PATIENCE)
}

/// Nobody else may read from `source`: a read that follows a wait could be in vain, and then it has no bound in time.
fn read_from(source: BorrowedFd<'_>, patience: Duration) -> Result<Vec<u8>, CniError> {
    let unreadable = |why: String| CniError::new(ErrorCode::Io, "cannot read stdin", why);
    let until = Instant::now() + patience;
    let mut bytes = Vec::new();
    loop {
        if !is_ready(source, until).map_err(|errno| unreadable(errno.to_string()))? {
            return Err(unreadable(format!("it was not closed within {patience:?}")));
        }
        bytes.reserve(PART);
        match rustix::io::read(source, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => return Ok(bytes),
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(unreadable(errno.to_string())),
        }
        if bytes.len() > MIB << 20 {
            let details = format!("stdin has more than {MIB} MiB");
            return Err(CniError::new(
                ErrorCode::Decode,
                "cannot decode the network configuration",
                details,
            ));
        }
    }
}

/// Waits until `source` has something to read or has ended. `false` if it does neither until then.
fn is_ready(source: BorrowedFd<'_>, until: Instant) -> Result<bool, Errno> {
    loop {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now()));
        let ready =
            poll(&mut [PollFd::from_borrowed_fd(source, PollFlags::IN)], left.ok().as_ref());
        match ready {
            Err(Errno::INTR) => {}
            ready => return ready.map(|n| n > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn stdin_is_read_to_its_end_or_bound() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |n_bytes: usize| {
            file.as_file().set_len(u64::try_from(n_bytes).unwrap()).unwrap();
            let source = File::open(file.path()).unwrap();
            read_from(source.as_fd(), PATIENCE).map(|bytes| bytes.len())
        };
        assert_eq!(read(0), Ok(0));
        assert_eq!(read(PART + 1), Ok(PART + 1));
        assert_eq!(read(4 << 20), Ok(4 << 20));
        assert_eq!(read((4 << 20) + 1).unwrap_err().code, ErrorCode::Decode);
        let endless = read_from(File::open("/dev/zero").unwrap().as_fd(), PATIENCE);
        assert_eq!(endless.unwrap_err().code, ErrorCode::Decode);
    }

    #[test]
    fn stdin_that_comes_in_parts_is_read_whole() {
        let (mut writer, source) = UnixStream::pair().unwrap();
        let writing = std::thread::spawn(move || {
            for part in ["{", "\"name\"", "}"] {
                writer.write_all(part.as_bytes()).unwrap();
            }
        });
        assert_eq!(read_from(source.as_fd(), PATIENCE).unwrap(), b"{\"name\"}");
        writing.join().unwrap();
    }

    #[test]
    fn stdin_that_stays_open_is_given_up() {
        let (mut open, source) = UnixStream::pair().unwrap();
        open.write_all(b"{").unwrap();
        let error = read_from(source.as_fd(), Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.code, ErrorCode::Io);
        assert!(error.details.contains("not closed within 10ms"), "{error}");
    }
}
