//! A blocking connection to the kernel's netfilter netlink, with two requests: one that lists or changes, and a
//! transaction of nftables. It must not know what the messages mean.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::nftables::{GenAttribute, GenMessage, NfTablesMessage};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size_force, set_socket_timeout};

use crate::netlink::{ECHOED_HEADER, KernelError};

/// How long the kernel may take for an answer. A transaction takes about 15 ms.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that a socket holds whatever the node's settings: the kernel's lowest limit is twice that.
const SMALL: usize = 64 << 10;

/// The subsystem that a transaction is for (`NFNL_SUBSYS_NFTABLES` of the kernel's `linux/netfilter/nfnetlink.h`).
const NFTABLES: u16 = 10;

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_BATCH_GENID` of the same header.
const BATCH_BEGIN: u8 = 16;
const BATCH_GENERATION: u16 = 1;

/// A state of nftables in one namespace: it counts transactions, of whatever program. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u32);

/// A netlink socket, tied to the namespace in which it was opened. After an error it must not be used again, since
/// further answers may be on their way.
pub(crate) struct Netfilter {
    socket: Socket,
    family: NetfilterProtoFamily,
}

impl Netfilter {
    /// Opens a socket for requests about IPv4, in the calling thread's namespace.
    pub(crate) fn open() -> Result<Self, KernelError> {
        Self::open_for(NetfilterProtoFamily::IPv4)
    }

    /// Opens a socket for requests about `family`, in the calling thread's namespace.
    pub(crate) fn open_for(family: NetfilterProtoFamily) -> Result<Self, KernelError> {
        Self::connect().map(|socket| Self { socket, family }).map_err(socket_error)
    }

    fn connect() -> io::Result<Socket> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        // Without the request's body in the answer, the explanation is at a fixed offset.
        socket.set_cap_ack(true)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(socket)
    }

    /// Sends a request and passes each answer to `take`, up to an acknowledgement or the end of a dump.
    pub(crate) fn request(
        &self,
        message: impl Into<NetfilterMessageInner>,
        flags: u16,
        mut take: impl FnMut(NetfilterMessageInner),
    ) -> Result<(), KernelError> {
        let bytes = serialized(self.message(message, flags, 0));
        self.socket.send(&bytes, 0).map_err(socket_error)?;
        let mut interrupted = false;
        loop {
            for answer in self.receive()? {
                interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => take(message.inner),
                    _ if interrupted => return Err(KernelError::Interrupted),
                    other => return end(&other),
                }
            }
        }
    }

    /// The state of nftables now.
    pub(crate) fn generation(&self) -> Result<Generation, KernelError> {
        let mut found = None;
        let get = NfTablesMessage::GetGen(GenMessage { attributes: Vec::new() });
        self.request(get, NLM_F_ACK, |answer| {
            let NetfilterMessageInner::NfTables(NfTablesMessage::NewGen(answer)) = answer else {
                return;
            };
            found = answer.attributes.into_iter().find_map(|attribute| match attribute {
                GenAttribute::Id(id) => Some(Generation(id)),
                _ => None,
            });
        })?;
        found.ok_or(KernelError::Disconnected)
    }

    /// Carries out all of `changes`, each with its flags, or none of them. There must be one at least.
    pub(crate) fn transaction(
        &self,
        changes: Vec<(NfTablesMessage, u16)>,
    ) -> Result<(), KernelError> {
        self.batch(ControlMessage::BatchBegin, changes)
    }

    /// As [`transaction`](Self::transaction), but the kernel refuses it with [`Errno::RESTART`] if anybody has changed
    /// nftables since `read_at`. So changes that follow from what was read then do not undo those of others.
    pub(crate) fn transaction_at(
        &self,
        read_at: Generation,
        changes: Vec<(NfTablesMessage, u16)>,
    ) -> Result<(), KernelError> {
        let generation = DefaultNla::new(BATCH_GENERATION, read_at.0.to_be_bytes().to_vec());
        let begin =
            ControlMessage::Other { message_type: BATCH_BEGIN, attributes: vec![generation] };
        self.batch(begin, changes)
    }

    fn batch(
        &self,
        begin: ControlMessage,
        changes: Vec<(NfTablesMessage, u16)>,
    ) -> Result<(), KernelError> {
        let mut bytes = serialized(control(begin));
        let last = changes.len();
        for (n, (change, flags)) in (1..).zip(changes) {
            // One acknowledgement for all: the kernel drops answers that the socket has no room for.
            let flags = flags | if n == last { NLM_F_ACK } else { 0 };
            let sequence_number = u32::try_from(n).unwrap_or(u32::MAX);
            bytes.extend(serialized(self.message(change, flags, sequence_number)));
        }
        bytes.extend(serialized(control(ControlMessage::BatchEnd)));
        self.make_room(bytes.len()).map_err(socket_error)?;
        self.socket.send(&bytes, 0).map_err(socket_error)?;
        loop {
            for answer in self.receive()? {
                end(&answer.payload)?;
                if usize::try_from(answer.header.sequence_number) == Ok(last) {
                    return Ok(());
                }
            }
        }
    }

    /// The kernel takes a transaction in one piece, if the socket may hold so many bytes.
    fn make_room(&self, n_bytes: usize) -> io::Result<()> {
        if n_bytes < SMALL {
            return Ok(());
        }
        Ok(set_socket_send_buffer_size_force(&self.socket, n_bytes)?)
    }

    fn message(
        &self,
        message: impl Into<NetfilterMessageInner>,
        flags: u16,
        sequence_number: u32,
    ) -> NetlinkMessage<NetfilterMessage> {
        let header = NetfilterHeader::new(self.family, 0, 0);
        let mut message = NetlinkMessage::from(NetfilterMessage::new(header, message));
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = sequence_number;
        message
    }

    fn receive(&self) -> Result<Vec<NetlinkMessage<NetfilterMessage>>, KernelError> {
        let (bytes, _kernel) = self.socket.recv_from_full().map_err(socket_error)?;
        let mut rest = bytes.as_slice();
        let mut answers = Vec::new();
        while !rest.is_empty() {
            let answer = NetlinkMessage::<NetfilterMessage>::deserialize(rest)
                .map_err(|_| KernelError::Disconnected)?;
            let length = usize::try_from(answer.header.length).ok();
            let length = length.and_then(|length| length.checked_next_multiple_of(4));
            rest = length.and_then(|length| rest.get(length..)).unwrap_or_default();
            answers.push(answer);
        }
        Ok(answers)
    }
}

/// What an answer that is no object says: success, or a refusal.
fn end(payload: &NetlinkPayload<NetfilterMessage>) -> Result<(), KernelError> {
    match payload {
        NetlinkPayload::Error(error) if error.code.is_some() => {
            Err(KernelError::refused(error.raw_code(), error.header.get(ECHOED_HEADER..)))
        }
        NetlinkPayload::Done(done) if done.code < 0 => Err(KernelError::refused(done.code, None)),
        NetlinkPayload::Overrun(_) => Err(KernelError::Interrupted),
        _ => Ok(()),
    }
}

fn control(message: ControlMessage) -> NetlinkMessage<NetfilterMessage> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES);
    let mut message = NetlinkMessage::from(NetfilterMessage::new(header, message));
    message.header.flags = NLM_F_REQUEST;
    message
}

fn serialized(mut message: NetlinkMessage<NetfilterMessage>) -> Vec<u8> {
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn socket_error(fault: io::Error) -> KernelError {
    Errno::from_io_error(&fault).map_or(KernelError::Disconnected, |errno| KernelError::Refused {
        errno,
        explanation: None,
    })
}
