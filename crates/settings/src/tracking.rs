//! How long new ENIs remember idle connections.

use std::ops::RangeInclusive;

use ipam::connection_tracking::ConnectionTracking;

use crate::registry::{
    Setting, TIDEPOOL_TCP_ESTABLISHED_TIMEOUT, TIDEPOOL_UDP_STREAM_TIMEOUT, TIDEPOOL_UDP_TIMEOUT,
};
use crate::{SettingError, Variables};

// In seconds. Source:
// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html>.
const TCP_ESTABLISHED: RangeInclusive<u32> = 60..=432_000;
const UDP_STREAM: RangeInclusive<u32> = 60..=180;
const UDP: RangeInclusive<u32> = 30..=60;

/// The time-outs that are set. EC2 would refuse every new ENI with one out of its range.
pub(crate) fn wanted(variables: &Variables) -> Result<ConnectionTracking, SettingError> {
    let seconds = |setting: &'static Setting, range: RangeInclusive<u32>| {
        variables.optional_number(setting, *range.start(), *range.end())
    };
    Ok(ConnectionTracking {
        tcp_established: seconds(&TIDEPOOL_TCP_ESTABLISHED_TIMEOUT, TCP_ESTABLISHED)?,
        udp_stream: seconds(&TIDEPOOL_UDP_STREAM_TIMEOUT, UDP_STREAM)?,
        udp: seconds(&TIDEPOOL_UDP_TIMEOUT, UDP)?,
    })
}
