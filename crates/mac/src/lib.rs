//! Ethernet hardware addresses as a type: parsed once at the edge, the same in every crate.
//!
//! It must not know links, ENIs or EC2.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An Ethernet address. Its text form is six lower-case hexadecimal bytes with colons between them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

/// The text is not six hexadecimal bytes with colons between them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a hardware address like 02:00:5e:00:53:af")]
pub struct ParseMacError(String);

impl MacAddr {
    /// The address of a link that has none, such as a tunnel.
    pub const NONE: Self = Self([0; 6]);

    /// Its bytes in the order of the text form.
    #[must_use]
    pub fn octets(self) -> [u8; 6] {
        self.0
    }

    /// A locally administered unicast address (IEEE 802, bits 1 and 0 of the first byte): no manufacturer
    /// assigns it.
    #[must_use]
    pub fn local(mut octets: [u8; 6]) -> Self {
        octets[0] = (octets[0] | 0x02) & !0x01;
        Self(octets)
    }

    /// `None` unless `octets` has six bytes.
    #[must_use]
    pub fn from_slice(octets: &[u8]) -> Option<Self> {
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

impl TryFrom<String> for MacAddr {
    type Error = ParseMacError;

    fn try_from(text: String) -> Result<Self, ParseMacError> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> String {
        mac.to_string()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The metadata of a simulated VPC name every ENI by its address: a tenth of a simulation's time.
        let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
        let mut text = [b':'; 17];
        for (pair, octet) in text.chunks_mut(3).zip(self.0) {
            pair[0] = digit(octet >> 4);
            pair[1] = digit(octet & 0x0f);
        }
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
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
        fn text_and_json_of_any_address_parse_back(octets: [u8; 6]) {
            let mac = MacAddr::from(octets);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
            let json = serde_json::to_string(&mac).unwrap();
            prop_assert_eq!(serde_json::from_str::<MacAddr>(&json).unwrap(), mac);
        }
    }

    #[test]
    fn parse_of_malformed_text_fails() {
        let mac: MacAddr = "02:0A:5e:00:53:af".parse().unwrap();
        assert_eq!(mac.to_string(), "02:0a:5e:00:53:af");
        for bad in [
            "",
            "x",
            "02:0a:5e:00:53",
            "02:0a:5e:00:53:af:00",
            "02:0a:5e:00:53:+f",
            "2:0a:5e:00:53:af0",
            "é2:0a:5e:00:53:a",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn local_sets_local_and_clears_multicast_bit() {
        assert_eq!(MacAddr::local([0xff; 6]).to_string(), "fe:ff:ff:ff:ff:ff");
        assert_eq!(MacAddr::local([0; 6]).to_string(), "02:00:00:00:00:00");
    }
}
