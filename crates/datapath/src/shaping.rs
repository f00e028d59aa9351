//! Limits of a pod's bandwidth: a token bucket (`tbf`) at each end of its link that has a limit. What the pod gets is
//! limited as it leaves the host's end, and what the pod sends as it leaves the pod's end. The buckets go with the link.
//!
//! The layout of messages is that of `linux/pkt_sched.h`. It must not know who has asked for a limit.

use std::num::NonZeroU64;
use std::path::Path;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE, Nla as _, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

use crate::link;
use crate::netlink::{KernelError, Netlink};
use crate::netns::{Netns, NetnsError};
use crate::pod::MadeLink;
use crate::{InterfaceName, Mtu};

/// How much may wait for tokens, as the time that it takes at the rate. It is that of the reference plugin.
const QUEUE_MS: u64 = 25;
/// How much may pass at once if nobody says, as the time that it takes at the rate.
const BURST_MS: u64 = 100;
/// Bytes of an Ethernet header.
const ETHERNET: u32 = 14;

/// A limit of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Bytes per second.
    pub rate: NonZeroU64,
    /// How many bytes may pass at once after a pause; `None` for what the rate carries in 100 ms. At least one packet may.
    pub burst: Option<u32>,
}

/// The limits of a pod's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Of what the pod gets.
    pub to_pod: Option<Limit>,
    /// Of what the pod sends.
    pub from_pod: Option<Limit>,
}

/// Why a limit is not set, or not as it was set.
#[derive(Debug, thiserror::Error)]
pub enum ShapingError {
    /// The pod's namespace cannot be used.
    #[error("use the pod's network namespace")]
    Netns(#[source] NetnsError),
    /// The node's netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// The kernel could not be read.
    #[error("read {device}'s limit")]
    Read {
        /// One of the ends.
        device: InterfaceName,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// There is no such link.
    #[error("{device} is not there")]
    NoLink {
        /// One of the ends.
        device: InterfaceName,
    },
    /// The kernel refused the limit.
    #[error("limit {device} to {rate} bytes per second; the kernel needs sch_tbf")]
    Write {
        /// One of the ends.
        device: InterfaceName,
        /// The limit.
        rate: NonZeroU64,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// The limit is gone or changed.
    #[error("{device} has no limit of {rate} bytes per second")]
    Missing {
        /// One of the ends.
        device: InterfaceName,
        /// The limit.
        rate: NonZeroU64,
    },
}

/// Limits what passes over a link that was just made. It may be repeated.
///
/// # Errors
///
/// [`ShapingError`]. One of the two limits may be set.
pub async fn limit(made: &MadeLink, limits: &Limits) -> Result<(), ShapingError> {
    let (host, pod) = made.ends();
    for (side, limit) in [(host, limits.to_pod), (pod, limits.from_pod)] {
        if let Some(limit) = limit {
            set(side.netlink, side.name, made.mtu(), limit).await?;
        }
    }
    Ok(())
}

/// One end of a link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) netlink: &'a Netlink,
    pub(crate) name: &'a InterfaceName,
}

/// Compares the limits with the kernel's, by their rates. The kernel shows a burst as a time that it has rounded.
///
/// # Errors
///
/// [`ShapingError::Missing`] for the first one that differs, and others if the kernel cannot be read.
pub async fn check(
    netns: &Path,
    ifname: &InterfaceName,
    host_name: &InterfaceName,
    limits: &Limits,
) -> Result<(), ShapingError> {
    if let Some(limit) = limits.to_pod {
        let netlink = Netlink::open().map_err(ShapingError::Socket)?;
        compare(&netlink, host_name, limit).await?;
    }
    if let Some(limit) = limits.from_pod {
        let netns = Netns::open(netns).map_err(ShapingError::Netns)?;
        let netlink = netns.netlink().map_err(ShapingError::Netns)?;
        compare(&netlink, ifname, limit).await?;
    }
    Ok(())
}

async fn set(
    netlink: &Netlink,
    device: &InterfaceName,
    mtu: Mtu,
    limit: Limit,
) -> Result<(), ShapingError> {
    let index = index(netlink, device).await?;
    let message = bucket(index, &Bucket::of(limit, mtu.bytes()));
    let request = RouteNetlinkMessage::NewQueueDiscipline(message);
    let set = netlink.change(request, NLM_F_CREATE | NLM_F_REPLACE).await;
    let (device, rate) = (device.clone(), limit.rate);
    set.map_err(|source| ShapingError::Write { device, rate, source })
}

async fn index(netlink: &Netlink, device: &InterfaceName) -> Result<i32, ShapingError> {
    let found = link::by_name(netlink, device.as_str()).await;
    let found = found.map_err(|source| ShapingError::Read { device: device.clone(), source })?;
    let index = found.and_then(|link| i32::try_from(link.index).ok());
    index.ok_or_else(|| ShapingError::NoLink { device: device.clone() })
}

async fn compare(
    netlink: &Netlink,
    device: &InterfaceName,
    limit: Limit,
) -> Result<(), ShapingError> {
    let index = index(netlink, device).await?;
    let mut wanted = TcMessage::default();
    wanted.header.index = index;
    // The kernel answers a request for one discipline only to whoever follows all changes.
    let found = netlink.dump(RouteNetlinkMessage::GetQueueDiscipline(wanted)).await;
    let found = found.map_err(|source| ShapingError::Read { device: device.clone(), source })?;
    let is_root =
        |found: &TcMessage| found.header.index == index && found.header.parent == TcHandle::ROOT;
    let found = found.iter().find_map(|message| match message {
        RouteNetlinkMessage::NewQueueDiscipline(found) if is_root(found) => rate_of(found),
        _ => None,
    });
    match found {
        Some(rate) if rate == limit.rate.get() => Ok(()),
        Some(_) | None => Err(ShapingError::Missing { device: device.clone(), rate: limit.rate }),
    }
}

/// What the kernel needs to know.
#[derive(Debug, PartialEq, Eq)]
struct Bucket {
    /// Bytes per second.
    rate: u64,
    /// Bytes.
    burst: u32,
    /// Bytes that may wait.
    queue: u32,
}

impl Bucket {
    fn of(Limit { rate, burst }: Limit, mtu: u32) -> Self {
        let rate = rate.get();
        let carried = |ms| u32::try_from(rate.saturating_mul(ms) / 1000).unwrap_or(u32::MAX);
        // Smaller than a packet would let none pass.
        let burst = burst.unwrap_or_else(|| carried(BURST_MS)).max(mtu + ETHERNET);
        Self { rate, burst, queue: carried(QUEUE_MS).saturating_add(burst) }
    }
}

// Attributes of the bucket's options.
const PARAMETERS: u16 = 1;
const RATE_64: u16 = 4;
const BURST: u16 = 6;

/// The rate is this if it does not fit, and then the whole rate is in an attribute of its own.
const TOO_FAST: u32 = u32::MAX;

fn root(index: i32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = index;
    message.header.parent = TcHandle::ROOT;
    message.attributes.push(TcAttribute::Kind("tbf".to_owned()));
    message
}

fn bucket(index: i32, Bucket { rate, burst, queue }: &Bucket) -> TcMessage {
    /// The kernel computes what a packet costs, and needs no table for it (`TC_LINKLAYER_ETHERNET`).
    const ETHERNET_LAYER: u8 = 1;
    /// Bytes of a rate (`tc_ratespec`). The last four are the rate itself.
    const RATE: usize = 12;
    let small = u32::try_from(*rate).unwrap_or(TOO_FAST);
    let mut parameters = vec![0; RATE - 4];
    parameters[1] = ETHERNET_LAYER;
    parameters.extend(small.to_ne_bytes());
    // No peak rate.
    parameters.extend([0; RATE]);
    parameters.extend(queue.to_ne_bytes());
    // The kernel computes the time of the burst from its bytes.
    parameters.extend([0; 8]);
    let mut options = vec![
        DefaultNla::new(PARAMETERS, parameters),
        DefaultNla::new(BURST, burst.to_ne_bytes().to_vec()),
    ];
    if small == TOO_FAST {
        options.push(DefaultNla::new(RATE_64, rate.to_ne_bytes().to_vec()));
    }
    let mut message = root(index);
    let options = options.into_iter().map(TcOption::Other).collect();
    message.attributes.push(TcAttribute::Options(options));
    message
}

/// Bytes per second of a bucket that the kernel shows; `None` for another discipline.
fn rate_of(found: &TcMessage) -> Option<u64> {
    let is_bucket = found.attributes.iter().any(|it| *it == TcAttribute::Kind("tbf".to_owned()));
    // The options of a kind that the library does not know come as one.
    let options = found.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) if is_bucket => options.first(),
        _ => None,
    })?;
    let mut bytes = vec![0; options.value_len()];
    options.emit_value(&mut bytes);
    let option = |kind| {
        let mut options = NlasIterator::new(bytes.as_slice()).filter_map(Result::ok);
        options.find(|option| option.kind() == kind).map(|option| option.value().to_vec())
    };
    let whole = option(RATE_64).and_then(|bytes| Some(u64::from_ne_bytes(bytes.try_into().ok()?)));
    let parameters = option(PARAMETERS)?;
    let small = u32::from_ne_bytes(parameters.get(8..12)?.try_into().ok()?);
    Some(whole.unwrap_or_else(|| small.into()))
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{Emitable as _, Parseable as _};

    use super::*;

    fn check(rate: u64, burst: Option<u32>, mtu: u32, expect: (u32, u32)) {
        let rate = NonZeroU64::new(rate).unwrap();
        let Bucket { burst, queue, .. } = Bucket::of(Limit { rate, burst }, mtu);
        assert_eq!((burst, queue), expect, "{rate} at {mtu}");
    }

    #[test]
    fn bucket_holds_a_tenth_of_a_second_and_at_least_a_packet() {
        check(1_250_000, None, 9001, (125_000, 156_250));
        check(125_000, None, 9001, (12_500, 15_625));
        check(125, None, 9001, (9015, 9018));
        check(1_250_000, Some(50_000), 9001, (50_000, 81_250));
        check(1_250_000, Some(1), 1500, (1514, 32_764));
        check(u64::MAX, None, 9001, (u32::MAX, u32::MAX));
    }

    /// As it comes back from the kernel.
    fn as_read(message: &TcMessage) -> TcMessage {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        TcMessage::parse(&bytes).unwrap()
    }

    #[test]
    fn rate_of_any_size_is_read_back() {
        for rate in [1, 125_000, 4_294_967_294, 4_294_967_295, 125_000_000_000] {
            let written = bucket(7, &Bucket { rate, burst: 9015, queue: 20_000 });
            assert_eq!(rate_of(&as_read(&written)), Some(rate));
        }
        let mut other = bucket(7, &Bucket { rate: 1, burst: 1, queue: 1 });
        other.attributes[0] = TcAttribute::Kind("pfifo_fast".to_owned());
        assert_eq!(rate_of(&as_read(&other)), None);
    }
}
