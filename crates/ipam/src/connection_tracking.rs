//! How long an ENI remembers idle connections. Security groups, and so answers to a pod, depend on it.

use serde::{Deserialize, Serialize};

/// The time-outs in seconds that differ from those of the instance type; usually none. EC2 takes 60 to 432,000 for
/// TCP, 60 to 180 for streams of UDP, and 30 to 60 for other UDP. Source:
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html>.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionTracking {
    /// Of established TCP connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_established: Option<u32>,
    /// Of UDP flows with more than one request and response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp_stream: Option<u32>,
    /// Of other UDP flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<u32>,
}

impl ConnectionTracking {
    /// Whether all time-outs are those of the instance type.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// These time-outs, and those of `other` where there are none.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let Self { tcp_established, udp_stream, udp } = self;
        Self {
            tcp_established: tcp_established.or(other.tcp_established),
            udp_stream: udp_stream.or(other.udp_stream),
            udp: udp.or(other.udp),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::call::Ec2Call;

    /// An older build neither writes the time-outs nor knows them.
    #[test]
    fn intent_without_time_outs_is_as_in_older_records() {
        let older = r#"{"create_eni":{"subnet":"subnet-1","security_groups":[],"blocks":{"kind":"v4_address","n":0},"description":"","tags":{},"client_token":"t"}}"#;
        let call: Ec2Call = serde_json::from_str(older).unwrap();
        let Ec2Call::CreateEni { connection_tracking, .. } = &call else { panic!("{call:?}") };
        assert!(connection_tracking.is_default());
        assert_eq!(serde_json::to_string(&call).unwrap(), older);
        let newer = older.replace(r#""blocks""#, r#""connection_tracking":{"udp":31},"blocks""#);
        let call: Ec2Call = serde_json::from_str(&newer).unwrap();
        assert_eq!(serde_json::to_string(&call).unwrap(), newer);
    }
}
