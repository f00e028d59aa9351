//! The session tokens of IMDSv2.

use std::collections::BTreeMap;
use std::time::Duration;

use ec2_model::SimTime;
use ec2_model::id::InstanceId;

/// Issued tokens that may still be valid.
///
/// Tokens need not be secret: a process that can read this process's memory or network needs no
/// token.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    n_issued: u64,
    live: BTreeMap<String, (InstanceId, SimTime)>,
}

impl Tokens {
    /// A new token for `instance`, valid for `ttl` seconds.
    pub(super) fn issue(&mut self, instance: &InstanceId, ttl: u32, now: SimTime) -> String {
        self.live.retain(|_, (_, expires)| *expires > now);
        self.n_issued += 1;
        // It has the length and alphabet of real tokens.
        let token = format!("AQAEA{:0>49}==", self.n_issued);
        let expires = now + Duration::from_secs(ttl.into());
        self.live.insert(token.clone(), (instance.clone(), expires));
        token
    }

    /// Whether `token` was issued for `instance` and has not expired.
    pub(super) fn is_valid(&self, token: &[u8], instance: &InstanceId, now: SimTime) -> bool {
        let known = std::str::from_utf8(token).ok().and_then(|token| self.live.get(token));
        known.is_some_and(|(owner, expires)| owner == instance && *expires > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_valid_for_its_instance_and_time() {
        let (one, other) = (InstanceId::from_number(1), InstanceId::from_number(2));
        let mut tokens = Tokens::default();
        let at = |millis| SimTime::from_unix_millis(millis);
        let token = tokens.issue(&one, 2, at(0));
        assert_eq!(token.len(), 56);
        assert!(tokens.is_valid(token.as_bytes(), &one, at(1999)));
        assert!(!tokens.is_valid(token.as_bytes(), &one, at(2000)));
        assert!(!tokens.is_valid(token.as_bytes(), &other, at(0)));
        assert!(!tokens.is_valid(b"", &one, at(0)));
        assert_ne!(tokens.issue(&one, 2, at(3000)), token);
        assert!(!tokens.is_valid(token.as_bytes(), &one, at(0)), "forgotten once it has expired");
    }
}
