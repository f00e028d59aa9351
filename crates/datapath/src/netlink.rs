//! A connection to the kernel's route netlink, with three requests: change, get, dump. It must not
//! know what the messages mean.
//!
//! Only rtnetlink's connection is used. Its requests drop the kernel's explanation of a refusal, and
//! do not repeat an interrupted dump.

use std::fmt;
use std::io;

use futures::{Stream, StreamExt as _};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket as _, TokioSocket};
use rustix::io::Errno;

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

/// A netlink socket, tied to the namespace in which it was opened.
#[derive(Debug, Clone)]
pub(crate) struct Netlink(rtnetlink::Handle);

impl Netlink {
    /// Opens a socket in the calling thread's namespace. Its connection runs as a task of the
    /// current runtime until the last clone is dropped.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = TokioSocket::new(NETLINK_ROUTE)?;
        let options = socket.socket_ref();
        options.set_ext_ack(true)?;
        // Without the request's body in the answer, the explanation is at a fixed offset.
        options.set_cap_ack(true)?;
        // Without this the kernel ignores the filters of a dump and sends everything.
        options.set_netlink_get_strict_chk(true)?;
        let (mut connection, handle, _) = rtnetlink::from_socket(socket);
        // Otherwise a dead connection would look like success.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Sends a request that changes something, with `flags` in addition to acknowledgement.
    pub(crate) async fn change(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), KernelError> {
        let answer = self.send(message, NLM_F_ACK | flags)?.next().await;
        read(answer).map(drop)
    }

    /// Asks for one object.
    pub(crate) async fn get(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, KernelError> {
        match read(self.send(message, 0)?.next().await)? {
            Answer::Object(object) => Ok(object),
            Answer::End => Err(KernelError::Disconnected),
        }
    }

    /// Asks for all objects that `message` describes, in the kernel's order.
    pub(crate) async fn dump(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        whole(|| Ok(objects(self.send(message.clone(), NLM_F_DUMP)?))).await
    }

    fn send(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + use<>, KernelError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        self.0.clone().request(request).map_err(|_closed| KernelError::Disconnected)
    }
}

/// The first dump that is whole.
async fn whole<T, F: Future<Output = Result<Option<T>, KernelError>>>(
    mut dump: impl FnMut() -> Result<F, KernelError>,
) -> Result<T, KernelError> {
    for _ in 0..DUMP_ATTEMPTS {
        if let Some(objects) = dump()?.await? {
            return Ok(objects);
        }
    }
    Err(KernelError::Interrupted)
}

/// The objects of a dump; `None` if the table changed meanwhile.
async fn objects(
    mut answers: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin,
) -> Result<Option<Vec<RouteNetlinkMessage>>, KernelError> {
    let (mut objects, mut interrupted) = (Vec::new(), false);
    loop {
        let answer = answers.next().await;
        interrupted |=
            answer.as_ref().is_some_and(|answer| answer.header.flags & NLM_F_DUMP_INTR != 0);
        match read(answer)? {
            Answer::Object(object) => objects.push(object),
            Answer::End => return Ok((!interrupted).then_some(objects)),
        }
    }
}

enum Answer {
    Object(RouteNetlinkMessage),
    /// An acknowledgement, or the end of a dump.
    End,
}

fn read(answer: Option<NetlinkMessage<RouteNetlinkMessage>>) -> Result<Answer, KernelError> {
    match answer.ok_or(KernelError::Disconnected)?.payload {
        NetlinkPayload::InnerMessage(object) => Ok(Answer::Object(object)),
        NetlinkPayload::Error(error) if error.code.is_some() => {
            Err(KernelError::refused(error.raw_code(), error.header.get(ECHOED_HEADER..)))
        }
        NetlinkPayload::Done(done) if done.code < 0 => {
            Err(KernelError::refused(done.code, Some(&done.extended_ack)))
        }
        NetlinkPayload::Overrun(_) => Err(KernelError::Interrupted),
        _ => Ok(Answer::End),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::stream;
    use netlink_packet_core::{DoneMessage, NetlinkHeader};
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    fn message(
        flags: u16,
        payload: NetlinkPayload<RouteNetlinkMessage>,
    ) -> NetlinkMessage<RouteNetlinkMessage> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        NetlinkMessage::new(header, payload)
    }

    fn object(flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
        let link = RouteNetlinkMessage::NewLink(LinkMessage::default());
        message(flags, NetlinkPayload::InnerMessage(link))
    }

    fn done(flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
        message(flags, NetlinkPayload::Done(DoneMessage::default()))
    }

    /// The kernel sets the flag on any message of the dump, also on the last one.
    #[test]
    fn dump_with_an_interruption_is_not_whole() {
        let check = |answers: Vec<NetlinkMessage<RouteNetlinkMessage>>, expect| {
            let objects = objects(stream::iter(answers)).now_or_never().unwrap();
            assert_eq!(objects.map(|objects| objects.map(|objects| objects.len())), expect);
        };
        check(vec![object(0), object(0), done(0)], Ok(Some(2)));
        check(vec![object(NLM_F_DUMP_INTR), object(0), done(0)], Ok(None));
        check(vec![object(0), done(NLM_F_DUMP_INTR)], Ok(None));
        check(vec![object(0)], Err(KernelError::Disconnected));
        let overrun = message(0, NetlinkPayload::Overrun(Vec::new()));
        check(vec![object(0), overrun], Err(KernelError::Interrupted));
    }

    #[test]
    fn interrupted_dump_is_repeated_a_few_times() {
        let check = |n_interrupted: usize, expect| {
            let mut n = 0;
            let dump = || {
                n += 1;
                Ok(std::future::ready(Ok((n > n_interrupted).then_some(n))))
            };
            assert_eq!(whole(dump).now_or_never().unwrap(), expect, "{n_interrupted}");
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
