//! A connection to the kernel's route netlink, with three requests: change, get, dump. It must not
//! know what the messages mean.
//!
//! The socket blocks. The kernel carries out a request while it is being sent, and the answer is there when `send`
//! returns. To wait for it as for a network's would cost each request a turn of the event loop.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use tokio::sync::Mutex;

/// How long the kernel may take for an answer once it has taken the request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of the longest part of an answer. The kernel divides a dump into parts of at most 32 KiB.
const LONGEST_PART: usize = 64 * 1024;

/// How often an interrupted dump is repeated before it is an error.
const DUMP_ATTEMPTS: usize = 5;

/// The attribute with the explanation of a refusal (`NLMSGERR_ATTR_MSG` of the kernel's `netlink.h`).
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Length in bytes of the refused request's header, which precedes the attributes.
pub(crate) const ECHOED_HEADER: usize = 16;

/// Why a request to the kernel failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelError {
    /// The kernel refused.
    Refused {
        /// The code.
        errno: Errno,
        /// The kernel's explanation, if it gave one.
        explanation: Option<String>,
    },
    /// The table changed during each of several dumps.
    Interrupted,
    /// The netlink socket failed.
    Disconnected,
    /// The answer is not as this program knows it.
    Unreadable,
}

impl KernelError {
    pub(crate) fn is(&self, code: Errno) -> bool {
        matches!(self, Self::Refused { errno, .. } if *errno == code)
    }

    /// From the kernel's negative code and the attributes of its answer.
    pub(crate) fn refused(code: i32, attributes: Option<&[u8]>) -> Self {
        Self::Refused {
            errno: Errno::from_raw_os_error(code.saturating_neg()),
            explanation: explanation(attributes.unwrap_or_default()),
        }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { errno, explanation: None } => write!(f, "{errno}"),
            Self::Refused { errno, explanation: Some(text) } => {
                write!(f, "{} ({errno})", text.trim_end_matches('.'))
            }
            Self::Interrupted => f.write_str("the table changed during each of several dumps"),
            Self::Disconnected => f.write_str("the netlink socket failed"),
            Self::Unreadable => f.write_str("the kernel's answer cannot be read"),
        }
    }
}

impl std::error::Error for KernelError {}

fn explanation(attributes: &[u8]) -> Option<String> {
    NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .map(|attribute| {
            String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned()
        })
}

/// A netlink socket, tied to the namespace in which it was opened. Its clones share it: one asks after the other.
#[derive(Debug, Clone)]
pub(crate) struct Netlink(Arc<Mutex<Connection>>);

impl Netlink {
    /// Opens a socket in the calling thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_ext_ack(true)?;
        // Without the request's body in the answer, the explanation is at a fixed offset.
        socket.set_cap_ack(true)?;
        // Without this the kernel ignores the filters of a dump and sends everything.
        socket.set_netlink_get_strict_chk(true)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        let connection = Connection { socket, last: 0, part: Vec::new() };
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    /// Sends a request that changes something, with `flags` in addition to acknowledgement.
    pub(crate) async fn change(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), KernelError> {
        self.0.lock().await.ask(message, NLM_F_ACK | flags).map(drop)
    }

    /// Asks for one object.
    pub(crate) async fn get(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, KernelError> {
        let answer = self.0.lock().await.ask(message, 0)?;
        answer.objects.into_iter().next().ok_or(KernelError::Unreadable)
    }

    /// Asks for all objects that `message` describes, in the kernel's order.
    pub(crate) async fn dump(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        let mut connection = self.0.lock().await;
        whole(|| connection.ask(message.clone(), NLM_F_DUMP))
    }
}

type RouteMessage = NetlinkMessage<RouteNetlinkMessage>;

#[derive(Debug)]
struct Connection {
    socket: Socket,
    /// The number of the last request. Each answer has the number of its request.
    last: u32,
    /// The part of an answer that was read last.
    part: Vec<u8>,
}

impl Connection {
    /// Sends a request and reads its whole answer: an acknowledgement, a dump, or with neither flag one object. An object
    /// of a dump that cannot be read is left out, since a newer kernel may know more than this program.
    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<Answer, KernelError> {
        let has_end = flags & (NLM_F_ACK | NLM_F_DUMP) != 0;
        self.send(message, flags)?;
        let mut answer = Answer::default();
        loop {
            for message in self.receive()? {
                match message {
                    Err(_unreadable) if has_end => {}
                    Err(_unreadable) => return Err(KernelError::Unreadable),
                    Ok(message) => match answer.take(message)? {
                        Progress::Ended => return Ok(answer),
                        Progress::Object if !has_end => return Ok(answer),
                        Progress::Object => {}
                    },
                }
            }
        }
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), KernelError> {
        self.last = self.last.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.last;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop).map_err(|fault| socket_error(&fault))
    }

    /// The messages in the next part of the answer to the last request.
    fn receive(&mut self) -> Result<Vec<Result<RouteMessage, DecodeError>>, KernelError> {
        self.part.clear();
        self.part.reserve(LONGEST_PART);
        // A signal ends a wait for a socket that has a bound in time.
        while let Err(fault) = self.socket.recv(&mut self.part, 0) {
            if fault.kind() != io::ErrorKind::Interrupted {
                return Err(socket_error(&fault));
            }
        }
        let mut rest = self.part.as_slice();
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let header = NetlinkBuffer::new_checked(rest).map_err(|_| KernelError::Unreadable)?;
            // What an earlier request was not patient enough for.
            if header.sequence_number() == self.last {
                messages.push(NetlinkMessage::deserialize(rest));
            }
            let length = usize::try_from(header.length()).ok();
            let length = length.and_then(|length| length.checked_next_multiple_of(4));
            rest = length.and_then(|length| rest.get(length..)).unwrap_or_default();
        }
        Ok(messages)
    }
}

fn socket_error(fault: &io::Error) -> KernelError {
    match Errno::from_io_error(fault) {
        // The kernel has dropped a part of the answer.
        Some(Errno::NOBUFS) => KernelError::Interrupted,
        Some(_) | None => KernelError::Disconnected,
    }
}

/// The first dump that is whole.
fn whole(
    mut dump: impl FnMut() -> Result<Answer, KernelError>,
) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
    for _ in 0..DUMP_ATTEMPTS {
        let answer = dump()?;
        if !answer.interrupted {
            return Ok(answer.objects);
        }
    }
    Err(KernelError::Interrupted)
}

/// What has come of an answer.
#[derive(Debug, Default)]
struct Answer {
    objects: Vec<RouteNetlinkMessage>,
    /// Whether the table changed during the dump.
    interrupted: bool,
}

/// What a message is to the answer.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Object,
    /// An acknowledgement, or the end of a dump.
    Ended,
}

impl Answer {
    fn take(&mut self, message: RouteMessage) -> Result<Progress, KernelError> {
        self.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
        match message.payload {
            NetlinkPayload::InnerMessage(object) => {
                self.objects.push(object);
                Ok(Progress::Object)
            }
            NetlinkPayload::Error(error) if error.code.is_some() => {
                Err(KernelError::refused(error.raw_code(), error.header.get(ECHOED_HEADER..)))
            }
            NetlinkPayload::Done(done) if done.code < 0 => {
                Err(KernelError::refused(done.code, Some(&done.extended_ack)))
            }
            NetlinkPayload::Overrun(_) => Err(KernelError::Interrupted),
            _ => Ok(Progress::Ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DoneMessage, NetlinkHeader};
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    fn message(flags: u16, payload: NetlinkPayload<RouteNetlinkMessage>) -> RouteMessage {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        NetlinkMessage::new(header, payload)
    }

    fn object(flags: u16) -> RouteMessage {
        let link = RouteNetlinkMessage::NewLink(LinkMessage::default());
        message(flags, NetlinkPayload::InnerMessage(link))
    }

    fn done(flags: u16) -> RouteMessage {
        message(flags, NetlinkPayload::Done(DoneMessage::default()))
    }

    /// The kernel sets the flag on any message of the dump, also on the last one.
    #[test]
    fn dump_with_an_interruption_is_not_whole() {
        let check = |messages: Vec<RouteMessage>, expect| {
            let mut answer = Answer::default();
            let progress: Result<Vec<_>, _> =
                messages.into_iter().map(|message| answer.take(message)).collect();
            let ended = progress.map(|progress| progress.last() == Some(&Progress::Ended));
            let found = ended.map(|ended| (ended, answer.objects.len(), answer.interrupted));
            assert_eq!(found, expect);
        };
        check(vec![object(0), object(0), done(0)], Ok((true, 2, false)));
        check(vec![object(NLM_F_DUMP_INTR), object(0), done(0)], Ok((true, 2, true)));
        check(vec![object(0), done(NLM_F_DUMP_INTR)], Ok((true, 1, true)));
        check(vec![object(0)], Ok((false, 1, false)));
        let overrun = message(0, NetlinkPayload::Overrun(Vec::new()));
        check(vec![object(0), overrun], Err(KernelError::Interrupted));
    }

    #[test]
    fn interrupted_dump_is_repeated_a_few_times() {
        let check = |n_interrupted: usize, expect| {
            let mut n = 0;
            let dump = || {
                n += 1;
                Ok(Answer { objects: Vec::new(), interrupted: n <= n_interrupted })
            };
            let found = whole(dump).map(|_| n);
            assert_eq!(found, expect, "{n_interrupted}");
        };
        check(0, Ok(1));
        check(DUMP_ATTEMPTS - 1, Ok(DUMP_ATTEMPTS));
        check(DUMP_ATTEMPTS, Err(KernelError::Interrupted));
    }

    /// Attributes as the kernel sends them: length and kind, the value, padding to four bytes.
    const ATTRIBUTES: &[u8] = b"\x08\x00\x02\x00\x05\x00\x00\x00\x0c\x00\x01\x00No way.\0";

    #[test]
    fn refused_error_shows_the_kernels_explanation() {
        for (attributes, text) in [
            (Some(ATTRIBUTES), "No way (Invalid argument (os error 22))"),
            (Some(&ATTRIBUTES[..8]), "Invalid argument (os error 22)"),
            (Some(&ATTRIBUTES[..11]), "Invalid argument (os error 22)"),
            (None, "Invalid argument (os error 22)"),
        ] {
            assert_eq!(KernelError::refused(-22, attributes).to_string(), text);
        }
    }
}
