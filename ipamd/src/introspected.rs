//! The daemon's view by its introspection, for a node on which the daemon has no socket: a full or read-only disk.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use prost::Message as _;
use proto::v1::ViewReply;
use settings::BindAddress;

/// A running daemon answers within milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);
/// As much as the socket lets through.
const LARGEST: u64 = 4 * 1024 * 1024;

/// The view, and where it comes from. `None` if nobody answers, or if no introspection is served.
pub(crate) fn view() -> Option<(ViewReply, String)> {
    match settings::introspection_of_process().ok()?? {
        BindAddress::Loopback(address) => {
            let connection = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
            connection.set_read_timeout(Some(TIMEOUT)).ok()?;
            Some((ask(connection)?, address.to_string()))
        }
        BindAddress::Unix(path) => {
            let connection = UnixStream::connect(&path).ok()?;
            connection.set_read_timeout(Some(TIMEOUT)).ok()?;
            Some((ask(connection)?, path.display().to_string()))
        }
    }
}

/// HTTP/1.0, so the answer ends with the connection.
fn ask(mut connection: impl Read + Write) -> Option<ViewReply> {
    write!(connection, "GET {} HTTP/1.0\r\n\r\n", proto::VIEW_PATH).ok()?;
    let mut answer = Vec::new();
    connection.take(LARGEST).read_to_end(&mut answer).ok()?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Option<ViewReply> {
    let end = answer.windows(4).position(|at| at == b"\r\n\r\n")?;
    let is_ok = answer.starts_with(b"HTTP/1.0 200 ") || answer.starts_with(b"HTTP/1.1 200 ");
    is_ok.then(|| ViewReply::decode(&answer[end + 4..]).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_view_is_an_answer() {
        let view = ViewReply { instance_id: "i-1".to_owned(), ..ViewReply::default() };
        let with = |head: &str| [head.as_bytes(), b"\r\n\r\n", &view.encode_to_vec()].concat();
        let good = with("HTTP/1.0 200 OK\r\ncontent-type: application/x-protobuf");
        assert_eq!(parse(&good), Some(view.clone()));
        assert_eq!(parse(&with("HTTP/1.0 503 Service Unavailable")), None);
        assert_eq!(parse(&good[..good.len() - 1]), None);
        assert_eq!(parse(b"HTTP/1.0 200 OK"), None);
        assert_eq!(parse(b""), None);
    }
}
