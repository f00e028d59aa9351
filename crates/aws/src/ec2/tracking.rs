//! The time-outs of idle connections, in requests and answers.

use aws_sdk_ec2::types::{ConnectionTrackingSpecificationRequest, NetworkInterface};
use ipam::connection_tracking::ConnectionTracking;

use super::reply::{BadField, number};

/// `None` if the instance type's time-outs are wanted. A number beyond EC2's own type becomes the largest one, which
/// EC2 refuses.
pub(super) fn specification(
    wanted: ConnectionTracking,
) -> Option<ConnectionTrackingSpecificationRequest> {
    let seconds = |seconds: Option<u32>| seconds.map(|n| i32::try_from(n).unwrap_or(i32::MAX));
    let ConnectionTracking { tcp_established, udp_stream, udp } = wanted;
    (!wanted.is_default()).then(|| {
        ConnectionTrackingSpecificationRequest::builder()
            .set_tcp_established_timeout(seconds(tcp_established))
            .set_udp_stream_timeout(seconds(udp_stream))
            .set_udp_timeout(seconds(udp))
            .build()
    })
}

/// EC2 leaves out what is the instance type's own.
pub(super) fn of(eni: &NetworkInterface) -> Result<ConnectionTracking, BadField> {
    let Some(shown) = eni.connection_tracking_configuration() else {
        return Ok(ConnectionTracking::default());
    };
    let seconds = |value: Option<i32>| {
        value.map(|n| number("connectionTrackingConfiguration", Some(n))).transpose()
    };
    Ok(ConnectionTracking {
        tcp_established: seconds(shown.tcp_established_timeout())?,
        udp_stream: seconds(shown.udp_stream_timeout())?,
        udp: seconds(shown.udp_timeout())?,
    })
}
