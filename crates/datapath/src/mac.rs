//! Hardware addresses. Knows nothing of the links that have them.

use std::fmt;
use std::str::FromStr;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

/// The text is not six hexadecimal bytes with colons between them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a hardware address like 02:00:5e:00:53:af")]
pub struct ParseMacError(String);

impl MacAddr {
    /// What stands for the address of a link that has none, such as a tunnel.
    pub const NONE: Self = Self([0; 6]);

    /// Its bytes, in the order in which they are written.
    #[must_use]
    pub fn octets(self) -> [u8; 6] {
        self.0
    }

    /// An address that no manufacturer gave out: locally administered, unicast (IEEE 802, bits 1
    /// and 0 of the first byte).
    #[must_use]
    pub(crate) fn local(mut octets: [u8; 6]) -> Self {
        octets[0] = (octets[0] | 0x02) & !0x01;
        Self(octets)
    }

    /// `None` for what is not an Ethernet address.
    pub(crate) fn from_slice(octets: &[u8]) -> Option<Self> {
        octets.try_into().ok().map(Self)
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl FromStr for MacAddr {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let byte = |part: &str| {
            let hex = part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit());
            hex.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        };
        text.split(':')
            .map(byte)
            .collect::<Option<Vec<u8>>>()
            .and_then(|octets| Self::from_slice(&octets))
            .ok_or_else(|| ParseMacError(text.to_owned()))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(octets: [u8; 6]) {
            let mac = MacAddr::from(octets);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
        }
    }

    #[test]
    fn reads_what_it_prints_and_nothing_else() {
        let mac: MacAddr = "02:0A:5e:00:53:af".parse().unwrap();
        assert_eq!(mac.to_string(), "02:0a:5e:00:53:af");
        for bad in ["", "02:0a:5e:00:53", "02:0a:5e:00:53:af:00", "02:0a:5e:00:53:+f", "x"] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_local_address_is_local_and_unicast() {
        assert_eq!(MacAddr::local([0xff; 6]).to_string(), "fe:ff:ff:ff:ff:ff");
        assert_eq!(MacAddr::local([0; 6]).to_string(), "02:00:00:00:00:00");
    }
}
