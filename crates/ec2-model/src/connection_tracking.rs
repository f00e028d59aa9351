//! How long an ENI remembers idle connections, in seconds.
//!
//! Source:
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html>.

use std::ops::RangeInclusive;

use crate::error::ApiError;

const TCP_ESTABLISHED: RangeInclusive<i32> = 60..=432_000;
const UDP_STREAM: RangeInclusive<i32> = 60..=180;
const UDP: RangeInclusive<i32> = 30..=60;

/// `ConnectionTrackingSpecification` of a request and `connectionTrackingConfiguration` of an ENI.
/// A timeout that is absent is the instance type's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionTracking {
    /// `TcpEstablishedTimeout`, 60 to 432,000 seconds.
    pub tcp_established_timeout: Option<i32>,
    /// `UdpStreamTimeout`, 60 to 180 seconds.
    pub udp_stream_timeout: Option<i32>,
    /// `UdpTimeout`, 30 to 60 seconds.
    pub udp_timeout: Option<i32>,
}

impl ConnectionTracking {
    /// Whether a request names no timeout.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the ranges.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        let timeouts = [
            ("tcpEstablishedTimeout", self.tcp_established_timeout, TCP_ESTABLISHED),
            ("udpStreamTimeout", self.udp_stream_timeout, UDP_STREAM),
            ("udpTimeout", self.udp_timeout, UDP),
        ];
        for (name, given, allowed) in timeouts {
            if let Some(seconds) = given.filter(|seconds| !allowed.contains(seconds)) {
                let (least, most) = (allowed.start(), allowed.end());
                let why = format!("It must be an integer from {least} to {most}.");
                return Err(ApiError::invalid_value(&seconds.to_string(), name, &why));
            }
        }
        Ok(())
    }

    /// These timeouts, with those that `change` names replaced.
    pub(crate) fn changed(&self, change: &Self) -> Self {
        Self {
            tcp_established_timeout: change
                .tcp_established_timeout
                .or(self.tcp_established_timeout),
            udp_stream_timeout: change.udp_stream_timeout.or(self.udp_stream_timeout),
            udp_timeout: change.udp_timeout.or(self.udp_timeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_the_documented_ranges() {
        let check = |tcp, stream, udp, parameter: Option<&str>| {
            let wanted = ConnectionTracking {
                tcp_established_timeout: tcp,
                udp_stream_timeout: stream,
                udp_timeout: udp,
            };
            let error = wanted.check().err().map(|error| error.message).unwrap_or_default();
            assert_eq!(error.is_empty(), parameter.is_none(), "{error}");
            assert!(error.contains(parameter.unwrap_or_default()), "{error}");
        };
        check(None, None, None, None);
        check(Some(60), Some(60), Some(30), None);
        check(Some(432_000), Some(180), Some(60), None);
        check(Some(59), None, None, Some("tcpEstablishedTimeout"));
        check(Some(432_001), None, None, Some("tcpEstablishedTimeout"));
        check(None, Some(59), None, Some("udpStreamTimeout"));
        check(None, Some(181), None, Some("udpStreamTimeout"));
        check(None, None, Some(29), Some("udpTimeout"));
        check(None, None, Some(61), Some("udpTimeout"));
    }
}
