//! Jitter without randomness. Nodes that EC2 refused together must retry at different times. The same node
//! with the same events must do the same.

use std::time::Duration;

/// The jitter of one instance, derived from its id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(instance: &str) -> Self {
        Self(fnv1a(instance.as_bytes()))
    }

    /// Between half of `span` and one and a half of it. Evenly distributed over all instances and salts.
    pub(crate) fn about(self, span: Duration, salt: [u64; 2]) -> Duration {
        span.mul_f64(0.5 + self.share(salt))
    }

    /// Between `span` and a quarter more, evenly distributed as well.
    pub(crate) fn lengthened(self, span: Duration, salt: u32) -> Duration {
        span.mul_f64(1.0 + self.share([salt.into(), 0]) / 4.0)
    }

    /// A number between 0 and 1.
    fn share(self, salt: [u64; 2]) -> f64 {
        let mut bytes = self.0.to_le_bytes().to_vec();
        bytes.extend(salt.into_iter().flat_map(u64::to_le_bytes));
        let top = u32::try_from(fnv1a(&bytes) >> 32).unwrap_or(0);
        f64::from(top) / f64::from(u32::MAX)
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // FNV-1a hardly spreads its last bytes to the upper bits.
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nodes_retry_at_different_times() {
        let wait = |instance: usize, salt| {
            Jitter::new(&format!("i-{instance}")).lengthened(Duration::from_secs(64), salt)
        };
        let waits: BTreeSet<_> = (0..500).map(|instance| wait(instance, 1)).collect();
        assert!(waits.len() > 490, "{} different waits of 500", waits.len());
        assert_eq!(wait(7, 1), wait(7, 1));
        let waits: BTreeSet<_> = (0..500).map(|salt| wait(7, salt)).collect();
        assert!(waits.len() > 490, "{} different waits of 500", waits.len());
    }

    #[test]
    fn jitter_is_evenly_distributed() {
        let mut tenths = [0; 10];
        for (instance, salt) in (0..100).flat_map(|a| (0..100).map(move |b| (a, b))) {
            let wait =
                Jitter::new(&format!("i-{instance}")).about(Duration::from_secs(10), [3, salt]);
            tenths[usize::try_from(wait.as_secs().saturating_sub(5).min(9)).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|n| (900..=1_100).contains(n)), "{tenths:?}");
    }
}
